"""Where an edit takes numbers from: vectors of the model, and what other runs of it had."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.interventions.vector import (
    Difference,
    Literal,
    NeuronOutput,
    SaeFeature,
    Unembedding,
    ValueOf,
    Vector,
)
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.interventions.experts import activations_at
from transparent_llm_server.models.interventions.multiplied import Multiplied, multiplied
from transparent_llm_server.models.interventions.sites import captured, checked_site


def numbers_of(vector: Literal | KeptVector) -> torch.Tensor:
    """Of a vector that is numbers.

    Raises:
        InvalidRequestError: they are kept by a server, and are not here.
    """
    if vector.values is None:
        raise InvalidRequestError(f"{vector} is kept by a server, its numbers are not here: keep it in this object")
    return vector.values


class Sources:
    """Of the edits of one model."""

    def __init__(self, model: BridgedModel) -> None:
        self._model = model
        self._multiplied: list[tuple[RunValues, Multiplied]] = []

    def vector(self, vector: Vector) -> torch.Tensor:
        """Its numbers [d] or [n d], in float32 at least.

        Raises:
            InvalidRequestError: it is of another model.
            IndexOutOfRangeError: it names a token, neuron, row or position that is not there.
        """
        if isinstance(vector, Literal | KeptVector):
            return wide(numbers_of(vector))
        if isinstance(vector, Difference):
            one, other = self.vector(vector.minuend), self.vector(vector.subtrahend)
            if one.shape != other.shape:
                raise InvalidRequestError(
                    f"a difference of vectors of shapes {list(one.shape)} and {list(other.shape)}"
                )
            return one - other.to(one.device)
        if isinstance(vector, Unembedding):
            token = checked_index("token", vector.token, self._model.d_vocab)
            return wide(self._model.unembedding_of(token))
        if isinstance(vector, NeuronOutput):
            return self._neuron_output(vector)
        if isinstance(vector, SaeFeature):
            sae = self._model.saes.get(vector.sae)
            return sae.direction(checked_index("feature", vector.feature, sae.n_features), vector.direction)
        assert isinstance(vector, ValueOf)
        values = self.values(vector.source)
        row, pos = values.place(vector.row, vector.pos)
        return self.at(vector.site, values, [row], [pos])[0]

    def feature_of(self, vector: SaeFeature, site: Site) -> Callable[[float, float, torch.Tensor], torch.Tensor]:
        """What changes the activation of a feature within values of its site.

        Raises:
            InvalidRequestError: there is no such sparse autoencoder, or it is of another site.
            IndexOutOfRangeError: it has no such feature.
            NotSupportedError: it is a transcoder.
        """
        sae = self._model.saes.get(vector.sae)
        feature = checked_index("feature", vector.feature, sae.n_features)
        if sae.output_site != sae.site:
            raise NotSupportedError(
                f"{vector.sae!r} is a transcoder, which does not write what it reads: add sae_feature"
            )
        if checked_site(self._model, sae.site) != checked_site(self._model, site):
            raise InvalidRequestError(f"{vector.sae!r} is a sparse autoencoder of {sae.site}, the edit is at {site}")
        return partial(sae.clamped, feature)

    def _neuron_output(self, vector: NeuronOutput) -> torch.Tensor:
        layer = checked_index("layer", vector.layer, len(self._model.layers))
        neurons = self._model.layers[layer].neurons
        if neurons is None:
            raise NotSupportedError(f"layer {layer} has no neurons that can be told apart")
        neuron = checked_index("neuron", vector.neuron, neurons.count)
        return wide(neurons.output_vectors(neuron, neuron + 1)[0])

    def at(self, site: Site, values: RunValues, rows: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """What a run had at places of a site [n d], as it is stored."""
        site = checked_site(self._model, site)
        neurons = self._experts(site)
        if neurons is None:
            return self._captured(site, values)[list(rows), list(positions)]
        found = activations_at(neurons, values.capture.layers[site.layer], rows, positions)
        return found if site.neurons is None else found[:, list(site.neurons)]

    def _experts(self, site: Site) -> ExpertNeurons | None:
        if site.kind is not SiteKind.NEURONS:
            return None
        neurons = self._model.layers[site.layer].neurons
        return neurons if isinstance(neurons, ExpertNeurons) else None

    def _captured(self, site: Site, values: RunValues) -> torch.Tensor:
        if site.kind not in (SiteKind.QUERY, SiteKind.KEY):
            return captured(self._model, values, site)
        known = next((found for run, found in self._multiplied if run is values), None)
        if known is None:
            known = multiplied(self._model, values)
            self._multiplied.append((values, known))
        site = checked_site(self._model, site)
        found = known[site.layer, site.kind]
        return found.flatten(2) if site.head is None else found[:, :, site.head]

    def mean(self, site: Site, source: TransparentLlm) -> torch.Tensor:
        """The mean over all tokens of a run at a site [d], in float32 at least."""
        if site.kind is SiteKind.PATTERN:
            raise NotSupportedError(
                "a mean over positions has no meaning for a pattern, whose sources differ: name another site"
            )
        values = self.values(source)
        if self._experts(checked_site(self._model, site)) is not None:
            rows, positions = values.mask().tensor().nonzero().T.tolist()
            return wide(self.at(site, values, rows, positions)).mean(dim=0)
        found = self._captured(site, values)
        return wide(found[values.mask().tensor().to(found.device)]).mean(dim=0)

    def values(self, source: TransparentLlm) -> RunValues:
        """The current run of an object of this model.

        Raises:
            InvalidRequestError: it is of another model, or another kind of object.
            NotRunError: it has none.
        """
        found = getattr(source, "values", None)
        values = found() if callable(found) else None
        if not isinstance(values, RunValues):
            raise InvalidRequestError(
                f"the source of an edit is an object of the same model with a current run, got {type(source).__name__}"
            )
        if not values.is_of(self._model):
            raise InvalidRequestError("the source of an edit is a run of another model")
        return values
