"""Sparse autoencoders on the current run of a local object, and how they come to a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Float

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.site import Site, name_of, site_named
from transparent_llm.quoting import kind_of, quoted
from transparent_llm.runtime.current import Current
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.interventions.sources import Sources
from transparent_llm_server.models.saes.sae import Sae
from transparent_llm_server.models.saes.weights import SaeFolder

SaePlaces = Mapping[str, "tuple[str | Path, ...]"]
"""Name -> folder and site, of a transcoder also the site that it writes: as "residual_out.1"."""

_LONGEST_NAME = 128


@dataclass(frozen=True)
class SaeOfRow:
    """One of them, and a row of a run."""

    sae: Sae
    _sources: Sources
    _values: RunValues
    _row: int

    @property
    def n_features(self) -> int:
        """How many it has."""
        return self.sae.n_features

    @cached_property
    def inputs(self) -> Float[torch.Tensor, "pos d_in"]:
        """What it reads."""
        return self._at(self.sae.site)

    @cached_property
    def outputs(self) -> Float[torch.Tensor, "pos d_out"]:
        """What it is to write."""
        return self.inputs if self.sae.output_site == self.sae.site else self._at(self.sae.output_site)

    def encode(self, x: Float[torch.Tensor, "n d_in"]) -> Float[torch.Tensor, "n d_sae"]:
        """Activations of all features."""
        return self.sae.encode(x)

    def decode(
        self, activations: Float[torch.Tensor, "n d_sae"], x: Float[torch.Tensor, "n d_in"]
    ) -> Float[torch.Tensor, "n d_out"]:
        """What they stand for."""
        return self.sae.decode(activations, x)

    def _at(self, site: Site) -> torch.Tensor:
        n_pos = self._values.tokens().shape[1]
        return self._sources.at(site, self._values, [self._row] * n_pos, range(n_pos))


class Featuring:
    """The part of the local object that has sparse autoencoders."""

    _model: BridgedModel
    _current_run: Current[RunValues]

    def sae_of_row(self, name: str, row: int) -> SaeOfRow:
        """A sparse autoencoder on a row of the current run; an empty name stands for the only one.

        Raises:
            NotRunError: nothing was run yet.
            NotSupportedError: the model has none.
            InvalidRequestError: there is none of this name, or several and none was named.
        """
        return SaeOfRow(self._model.saes.get(name), Sources(self._model), self._current_run.get(), row)


def load_saes(model: BridgedModel, values: RunValues, places: SaePlaces) -> None:
    """Load sparse autoencoders and put them beside a model, of which some run tells how wide its sites are.

    Raises:
        InvalidRequestError: a name, folder or site that there is none of.
        NotSupportedError, IndexOutOfRangeError: a site that the model does not have.
        ModelRefusedError: what is in a folder cannot be right, is not known here, or is of other widths than the sites.
        TooLargeError: there is no memory for one.
    """
    for name, place in places.items():
        folder, site, output_site = _checked(name, place)
        found, value = SaeFolder(folder, name), _one(model, values, site)
        _require_width(name, site, found.settings.d_in, len(value))
        _require_width(name, output_site, found.settings.d_out, len(_one(model, values, output_site)))
        if found.settings.is_transcoder == (site == output_site):
            what = "a transcoder, which needs two sites" if site == output_site else "no transcoder, and has one site"
            raise InvalidRequestError(f"sparse autoencoder {quoted(name)} is {what}")
        model.saes.add(Sae.load(found, name, site, output_site, value.dtype, value.device))


def _checked(name: object, place: object) -> tuple[Path, Site, Site]:
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME or not name.isprintable():
        raise InvalidRequestError(
            f"a sparse autoencoder needs a name of 1 to {_LONGEST_NAME} characters, got {kind_of(name)}"
        )
    if not isinstance(place, tuple) or len(place) not in (2, 3) or not all(isinstance(at, str) for at in place[1:]):
        raise InvalidRequestError(
            f'sparse autoencoder {quoted(name)} needs a folder and a site, ("FOLDER", "residual_out.1"), '
            f"got {kind_of(place)}"
        )
    return Path(place[0]), site_named(str(place[1])), site_named(str(place[-1]))


def _one(model: BridgedModel, values: RunValues, site: Site) -> torch.Tensor:
    """What a run has at a site, at one position."""
    return Sources(model).at(site, values, [0], [0])[0]


def _require_width(name: str, site: Site, width: int, wanted: int) -> None:
    if width != wanted:
        raise InvalidRequestError(
            f"sparse autoencoder {quoted(name)} is of {width} numbers, {name_of(site)} of this model has {wanted}: it "
            "was made for another model or site",
            metadata={"expected": str(wanted), "got": str(width)},
        )
