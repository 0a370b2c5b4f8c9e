"""Features of a row with its tokens beside them, and which sparse autoencoders a model has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.places import checked_positions
from transparent_llm.analysis.reading import read_all, require_feature
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm
from transparent_llm.description import ModelDescription, SaeDescription
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of
from transparent_llm.table import Table

_SHOWN = 10
"""Features of a position in a table."""


@runtime_checkable
class _Described(Protocol):
    def describe(self) -> ModelDescription:
        """What is known of its model."""


@dataclass(frozen=True, repr=False, eq=False)
class ActiveFeatures(Labelled):
    """The most active features at positions of a row: `activations` and `ids` [pos rank], `active`, `error_norm` and
    `explained` [pos], as `transparent_llm.analysis.features.Features` defines them, without padding."""

    @property
    def ids(self) -> Int[torch.Tensor, "pos rank"]:
        """The features, in falling order of their activations; -1 where fewer are active."""
        return self["ids"]

    @property
    def activations(self) -> Float[torch.Tensor, "pos rank"]:
        """Theirs; 0 where fewer are active."""
        return self["activations"]

    @property
    def active(self) -> Int[torch.Tensor, "pos"]:
        """How many features are active."""
        return self["active"]

    @property
    def error_norm(self) -> Float[torch.Tensor, "pos"]:
        """Length of what the features do not account for."""
        return self["error_norm"]

    @property
    def explained(self) -> Float[torch.Tensor, "pos"]:
        """Share of variance explained."""
        return self["explained"]

    def table(self) -> Table:
        """A line for each position."""
        pos = self._axis("pos")
        rows = [
            (place, token, self._shown(i), int(self.active[i]), f"{self.explained[i]:.3f}")
            for i, (place, token) in enumerate(zip(pos.coordinates, pos.labels["token"], strict=True))
        ]
        return Table.of(self.title, ("pos", "token", "features", "active", "explained"), rows)

    def picture(self) -> str:
        """The table: numbers of features are no scale."""
        return self.table()._repr_html_()

    def _shown(self, i: int) -> str:
        pairs = zip(self.ids[i].tolist(), self.activations[i].tolist(), strict=True)
        return "  ".join(f"{feature}: {value:.3g}" for feature, value in list(pairs)[:_SHOWN] if feature >= 0)


def saes_of(llm: TransparentLlm) -> tuple[SaeDescription, ...]:
    """The sparse autoencoders and transcoders that are loaded with the model."""
    return llm.describe().saes if isinstance(llm, _Described) else ()


def features_of(
    llm: TransparentLlm, sae: str = "", batch_i: int = 0, *, k: int = 10, positions: Sequence[int] | None = None
) -> ActiveFeatures:
    """The most active features of a sparse autoencoder at positions of a row.

    Args:
        llm: Whose current run is looked at.
        sae: Its name, see `saes`. Empty: the only one that the model has.
        batch_i: Row of the run.
        k: How many features of each position.
        positions: Of the row, negative ones from its last token. None: all of its tokens.

    Raises:
        InvalidRequestError: there is no such sparse autoencoder, or it has fewer features than `k`.
        IndexOutOfRangeError: a row or position that the run does not have.
        NotSupportedError: the model has no sparse autoencoder.
    """
    require_feature(llm, "sae_features")
    row = Row.of(llm, batch_i)
    places = _tokens_at(row, positions)
    (found,) = read_all(llm, [("features", row.index, sae, tuple(places), k)])
    axes = (_pos(llm, row, places), Axis("rank", range(found.ids.shape[1])))
    tensors = {
        "activations": OnAxes(found.activations.cpu(), ("pos", "rank")),
        "ids": OnAxes(found.ids.cpu(), ("pos", "rank")),
        **{part: OnAxes(getattr(found, part).cpu(), ("pos",)) for part in ("active", "error_norm", "explained")},
    }
    return ActiveFeatures(_title("features", sae, row), axes, tensors)


def feature_activations_of(
    llm: TransparentLlm,
    sae: str,
    feature_ids: Sequence[int],
    batch_i: int = 0,
    *,
    positions: Sequence[int] | None = None,
) -> Labelled:
    """Activations of chosen features at positions of a row: `activations` [pos feature].

    Args:
        llm: Whose current run is looked at.
        sae: Name of the sparse autoencoder. Empty: the only one that the model has.
        feature_ids: The features; negative ones count from the end.
        batch_i: Row of the run.
        positions: Of the row, negative ones from its last token. None: all of its tokens.

    Raises:
        InvalidRequestError: there is no such sparse autoencoder, or no list of features.
        IndexOutOfRangeError: a row or position that the run does not have, or a feature that it does not have.
        NotSupportedError: the model has no sparse autoencoder.
    """
    if isinstance(feature_ids, str) or not hasattr(feature_ids, "__iter__"):
        raise InvalidRequestError(f"feature_ids is a list of integers, got {kind_of(feature_ids)}")
    require_feature(llm, "sae_features")
    row, chosen = Row.of(llm, batch_i), tuple(feature_ids)
    places = _tokens_at(row, positions)
    (found,) = read_all(llm, [("feature_activations", row.index, sae, chosen, tuple(places))])
    axes = (_pos(llm, row, places), Axis("feature", [int(each) for each in chosen]))
    return Labelled(
        _title("activations of features", sae, row), axes, {"activations": OnAxes(found.cpu(), ("pos", "feature"))}
    )


def _title(what: str, sae: str, row: Row) -> str:
    return f"{what} of {sae or 'the sparse autoencoder'}, row {row.index}"


def _tokens_at(row: Row, positions: Sequence[int] | None) -> list[int]:
    return list(range(row.n_tokens)) if positions is None else checked_positions(row, positions)


def _pos(llm: TransparentLlm, row: Row, places: list[int]) -> Axis:
    words = row.words(llm)
    return Axis("pos", places, {"token": [words[place] if place < len(words) else "" for place in places]})
