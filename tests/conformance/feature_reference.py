"""What the sparse autoencoder of the demo model finds, from its file and the stream of a plain model, in float64."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from conformance.stage import D_MODEL, SAE_SITE
from features.reference import decoded, encoded
from support.models.reference import HuggingFaceReference
from support.models.saes import weights_of

Parts = dict[str, Tensor]


class FeatureReference:
    """Of the current run of a plain model."""

    def __init__(self, reference: HuggingFaceReference) -> None:
        self._llm = reference
        self._weights = weights_of("standard", D_MODEL, 24)

    def parts(self, method: str, given: list[Any]) -> Parts:
        """The tensors of an analysis, by the names of its parts."""
        batch_i, named = given
        site, layer = SAE_SITE.split(".")
        mask = self._llm.mask()[batch_i]
        stream: Tensor = getattr(self._llm, site)(int(layer))[batch_i][mask].double()
        activations = encoded(stream, "standard", self._weights)
        positions = [p if p >= 0 else p + len(stream) for p in named.get("positions", ())] or list(range(len(mask)))
        real = [i for i, position in enumerate(positions) if position < len(stream)]
        at = [positions[i] for i in real]
        if method == "feature_activations":
            return {method: _spread(activations[at][:, named["feature_ids"]], real, len(positions), torch.nan)}
        top = activations[at].topk(named["k"], dim=1)
        error = (stream - decoded(activations, stream, self._weights)).norm(dim=1)[at]
        spread = (stream - stream.mean(dim=0)).norm(dim=1)[at]
        return {
            "ids": _spread(torch.where(top.values > 0, top.indices, -1), real, len(positions), -1),
            "activations": _spread(top.values, real, len(positions), torch.nan),
            "active": _spread((activations[at] > 0).sum(dim=1), real, len(positions), -1),
            "error_norm": _spread(error, real, len(positions), torch.nan),
            "explained": _spread(1 - (error / spread) ** 2, real, len(positions), torch.nan),
        }


def _spread(found: Tensor, places: list[int], n: int, absent: float) -> Tensor:
    """At these places of as many as there are; the others are padding."""
    made = found.new_full((n, *found.shape[1:]), absent)
    made[places] = found
    return made
