"""What is told of a gradient: itself, its length, or its product with what stands there or would."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transparent_llm.analysis.differentiation import SiteGradient
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions.site import OF_HEADS, SiteKind
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.differentiation.graph import Passed, Rows
from transparent_llm_server.models.differentiation.probes import passing_of
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.sites import checked_site
from transparent_llm_server.models.interventions.sources import Sources

_OF_KV = (SiteKind.KEY, SiteKind.VALUE)
_BY_HEAD_FIRST = (SiteKind.QUERY, SiteKind.KEY)
"""Which pass as [row head pos d_head]."""


@dataclass(frozen=True)
class Told:
    """Of one site that was checked."""

    model: BridgedModel
    rows: Rows
    asked: SiteGradient
    """With indices from the beginning."""

    sources: Sources
    """Where "times_difference" takes what the other run has."""

    @classmethod
    def of(cls, model: BridgedModel, rows: Rows, asked: SiteGradient, sources: Sources) -> Told:
        """Checked.

        Raises:
            IndexOutOfRangeError: a layer, head, neuron or row that is not there.
            NotSupportedError: the model has nothing there that has a gradient.
            InvalidRequestError: rows of the other run that have other numbers of tokens.
        """
        site = checked_site(model, asked.site)
        if site.kind is SiteKind.NEURONS and isinstance(model.layers[site.layer].neurons, ExpertNeurons):
            raise NotSupportedError(
                f"there is no gradient by {site}: neurons of experts pass as no tensor; ask for ffn_out"
            )
        told = cls(model, rows, SiteGradient(site, asked.form, asked.source, asked.source_rows), sources)
        if asked.source is not None:
            told.of_other()
        return told

    @property
    def passing(self) -> Passing:
        """What it is differentiated by."""
        return passing_of(self.asked.site)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the answer."""
        n_rows, n_pos = self.rows.tokens.shape
        layer, site = self.model.layers[self.asked.site.layer], self.asked.site
        n_neurons = 0
        if site.kind is SiteKind.NEURONS and layer.neurons is not None:
            n_neurons = layer.neurons.count if site.neurons is None else len(site.neurons)
        sizes = {"batch": n_rows, "pos": n_pos, "query_pos": n_pos, "key_pos": n_pos, "d_model": self.model.d_model}
        sizes |= {"head": self.model.n_heads, "kv_head": layer.n_kv_heads, "neuron": n_neurons}
        dims = self.asked.dims
        return tuple(sizes[axis] if axis != "d_head" else layer.heads.d_head for axis in dims)

    def answer(self, passed: Passed) -> torch.Tensor:
        """What is told, float32; 0 at padding.

        Raises:
            NotSupportedError: a gradient is not finite.
        """
        gradient = wide(self._shaped(passed.gradients[self.passing]))
        gradient = torch.where(self._is_seen(gradient), gradient, 0.0)
        if not bool(gradient.isfinite().all()):
            raise NotSupportedError(
                f"the gradient by {self.asked.site} is not finite in {self.model.dtype}: load the model in float32 or "
                "bfloat16, or ask for another metric"
            )
        return self._told(gradient, passed).float()

    def _told(self, gradient: torch.Tensor, passed: Passed) -> torch.Tensor:
        form, is_of_numbers = self.asked.form, self.asked.is_of_numbers
        if form == "gradient":
            return gradient
        if form == "norm":
            return gradient.abs() if is_of_numbers else gradient.norm(dim=-1)
        by = wide(self._activation(passed)).to(gradient.device)
        if self.asked.source is not None:
            by = wide(self._of_source()).to(gradient.device) - by
        product = torch.where(gradient == 0, 0.0, gradient * by)  # padding may hold anything
        return product if is_of_numbers else product.sum(dim=-1)

    def _activation(self, passed: Passed) -> torch.Tensor:
        """What stands there."""
        site = self.asked.site
        if site.kind is SiteKind.RESIDUAL_AFTER_ATTN:
            before, added = passed.kept[Passing(site.layer, "residual_in")], passed.points[self.passing]
            return self._shaped(before.reshape(added.shape) + added)
        if site.kind is SiteKind.PATTERN:
            return self._shaped(passed.kept[self.passing])
        return self._shaped(passed.points[self.passing])

    def _shaped(self, tensor: torch.Tensor) -> torch.Tensor:
        """As it passed, in the shape of a gradient."""
        site, (n_rows, n_pos) = self.asked.site, self.rows.tokens.shape
        if site.kind is SiteKind.PATTERN:
            return tensor if site.head is None else tensor[:, site.head]
        if site.kind in _BY_HEAD_FIRST:
            tensor = tensor.transpose(1, 2)
        return self._part(tensor.reshape(n_rows, n_pos, -1))

    def _part(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of [row pos ...], heads one after the other, what is asked for."""
        site = self.asked.site
        if site.kind in OF_HEADS:
            layer = self.model.layers[site.layer]
            n_heads = layer.n_kv_heads if site.kind in _OF_KV else self.model.n_heads
            by_head = tensor.reshape(*tensor.shape[:2], n_heads, -1)
            return by_head if site.head is None else by_head[:, :, site.head]
        return tensor if site.neurons is None else tensor[:, :, list(site.neurons)]

    def _is_seen(self, gradient: torch.Tensor) -> torch.Tensor:
        """Where there is no padding, and nothing that a query may not see."""
        mask = self.rows.mask.to(gradient.device)
        if self.asked.site.kind is not SiteKind.PATTERN:
            return mask.reshape(*mask.shape, *[1] * (gradient.ndim - 2))
        both, n_pos = mask[:, :, None] & mask[:, None, :], self.rows.tokens.shape[1]
        unedited = self.rows.values.capture.layers[self.asked.site.layer].pattern
        assert unedited is not None  # the site was checked
        seen = self.rows.of_run(unedited.transpose(1, 2))[..., :n_pos].transpose(1, 2).to(gradient.device) != 0
        return both & seen[:, self.asked.site.head] if gradient.ndim == 3 else both[:, None] & seen

    def of_other(self) -> tuple[RunValues, list[int]]:
        """The other run, and which of its rows."""
        asked = self.asked
        assert asked.source is not None  # it is of a difference
        values = self.sources.values(asked.source)
        lengths = values.mask().tensor().sum(dim=1).tolist()
        rows = [checked_index("source_rows", row, len(lengths)) for row in asked.source_rows or self.rows.indices]
        needed = self.rows.mask.sum(dim=1).tolist()
        if [lengths[row] for row in rows] != needed:
            raise InvalidRequestError(
                f"the other run has rows of {[lengths[row] for row in rows][:10]} tokens where this one has "
                f"{needed[:10]}: name source_rows, one for each row and of as many tokens"
            )
        return values, rows

    def _of_source(self) -> torch.Tensor:
        """What the other run has there, in the shape of the gradient."""
        values, rows = self.of_other()
        site, needed = self.asked.site, self.rows.mask.sum(dim=1).tolist()
        places = [(n, pos) for n, length in enumerate(needed) for pos in range(length)]
        at = [n for n, _ in places], [pos for _, pos in places]
        found = self.sources.at(site, values, [rows[n] for n in at[0]], at[1])
        whole = found.new_zeros(*self.rows.tokens.shape, found.shape[-1])
        if site.kind is not SiteKind.PATTERN:
            whole[at] = found
            return whole if site.head is not None or site.neurons is not None else self._part(whole)
        n_pos = self.rows.tokens.shape[1]
        by_head = found.reshape(len(places), 1 if site.head is not None else self.model.n_heads, -1)[..., :n_pos]
        whole = found.new_zeros(*self.rows.tokens.shape, by_head.shape[1], n_pos)
        whole[at] = by_head
        return whole[:, :, 0] if site.head is not None else whole.transpose(1, 2)
