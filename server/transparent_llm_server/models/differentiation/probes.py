"""What becomes of tensors on the way of a pass whose graph is kept: some are differentiated by, some are constants."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from transparent_llm.analysis.differentiation import Frozen
from transparent_llm.errors import NotSupportedError
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.frozen_norm import FrozenNorm

_Kept = dict[Any, torch.Tensor]

_FIELDS = {
    SiteKind.RESIDUAL_IN: "residual_in",
    SiteKind.RESIDUAL_AFTER_ATTN: "attn_added",  # to the stream before, and read by nothing else
    SiteKind.RESIDUAL_OUT: "residual_out",
    SiteKind.ATTN_OUT: "attn_out",
    SiteKind.FFN_OUT: "ffn_out",
    SiteKind.HEAD: "z",
    SiteKind.PATTERN: "pattern",
    SiteKind.NEURONS: "neurons",
    SiteKind.QUERY: "query",
    SiteKind.KEY: "key",
    SiteKind.VALUE: "value",
}


def passing_of(site: Site) -> Passing:
    """The tensor that a checked site is differentiated at."""
    return Passing(site.layer, _FIELDS[site.kind])


class Probes:
    """Of one pass.

    Args:
        model: That runs.
        wanted: Tensors that are differentiated by.
        frozen: What is a constant.
        start: The layer that the graph begins with.
        batch_pos: Rows and positions of the pass.
        put: Tensors that stand in the places of the pass's own.

    Raises:
        NotSupportedError: the model has something that cannot be frozen.
    """

    def __init__(
        self,
        model: BridgedModel,
        wanted: Collection[Passing],
        frozen: Collection[Frozen],
        start: int,
        batch_pos: Sequence[int],
        put: Mapping[Passing, torch.Tensor] | None = None,
    ) -> None:
        self._model, self._wanted, self._frozen = model, frozenset(wanted), frozen
        self._start, self._batch_pos, self._put = start, (batch_pos[0], batch_pos[1]), put or {}
        self.points: dict[Passing, torch.Tensor] = {}
        """Of the tensors that have passed, what is differentiated by; of a pattern, what is added to it."""

        self._constants = {each for i in self._layers for each in self._constants_of(i, model.layers[i])}

    @property
    def _layers(self) -> range:
        return range(self._start, len(self._model.layers))

    def rewrites(self) -> dict[Passing, Rewrite]:
        """Of the tensors that pass, after their edits."""
        entries = {Passing(layer, "residual_in") for layer in self._layers}  # where it may stop on the way back
        found: dict[Passing, Rewrite] = {}
        for passing in entries | self._wanted | self._constants:
            rewrite = self._with_more if passing.field == "pattern" else self._passed
            found[passing] = partial(rewrite, passing)
        if "norm_scales" in self._frozen:
            for i in self._layers:
                for norm in self._norms(i, self._model.layers[i]):
                    found |= norm.rewrites
        return found

    def final_scale(self, residual_out: torch.Tensor) -> torch.Tensor | None:
        """What the final norm divides by [batch pos 1], where that is a constant."""
        if "norm_scales" not in self._frozen:
            return None
        norm = self._model.final_norm
        if norm is None:
            raise _not_frozen("norm_scales", "it is not known how the norm before the unembedding computes")
        return norm.scale(residual_out).detach()

    def _passed(self, passing: Passing, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """The same numbers, of which a copy goes on, as some models write to what they are given."""
        begins = passing == Passing(self._start, "residual_in")
        put = self._put.get(passing)
        tensor = tensor if put is None else put.reshape(tensor.shape).to(tensor)
        if passing in self._constants or begins:
            tensor = tensor.detach()
        if passing in self._wanted or begins:
            point = tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()
            self.points[passing] = point
            tensor = point.clone()
        if passing.field == "residual_in" and tensor.requires_grad:
            tensor.register_hook(_looked_whether_to_go_on)  # type: ignore[no-untyped-call]
        kept[passing] = tensor
        return tensor

    def _with_more(self, passing: Passing, pattern: torch.Tensor, kept: _Kept) -> torch.Tensor:  # noqa: ARG002
        """A pattern, and what is added to it, which is nothing."""
        self.points[passing] = more = torch.zeros_like(pattern).requires_grad_()
        return pattern + more

    def _constants_of(self, index: int, layer: Layer) -> Iterator[Passing]:
        if layer.has_heads:
            if "patterns" in self._frozen or "attention" in self._frozen:
                yield from (Passing(index, "query"), Passing(index, "key"))
            if "attention" in self._frozen:
                yield Passing(index, "value")
        elif "attention" in self._frozen:
            yield self._branch(index, layer, "attn_out", "attention")
        if "neurons" in self._frozen:
            yield Passing(index, "neurons") if layer.neurons else self._branch(index, layer, "ffn_out", "neurons")

    def _branch(self, index: int, layer: Layer, field: str, part: Frozen) -> Passing:
        """What a part gives, where it is not known what it is made of."""
        if field not in layer.hooks:
            raise _not_frozen(part, f"layer {index} has no such branch")
        return Passing(index, field)

    def _norms(self, index: int, layer: Layer) -> Iterator[FrozenNorm]:
        for place, module in layer.norms.items():
            if place == "ffn" and module is layer.norms.get("attn"):
                continue  # one norm before both parts
            norm = layer.norm(place)
            if norm is None:
                raise _not_frozen("norm_scales", f"it is not known how the norm {place} of layer {index} computes")
            yield FrozenNorm(layer, index, place, norm, self._batch_pos, torch.Tensor.detach, keeps=False)


def _looked_whether_to_go_on(_: torch.Tensor) -> None:
    raise_if_cancelled()


def _not_frozen(part: Frozen, why: str) -> NotSupportedError:
    return NotSupportedError(f"{part!r} cannot be frozen: {why}")
