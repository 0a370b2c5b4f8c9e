"""Edits on the way of a forward pass: what becomes of the tensors that pass the taps of each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.interventions.operation import Scale
from transparent_llm.interventions.site import SiteKind
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.forward.passes import Rewrites
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit, all_made, together
from transparent_llm_server.models.interventions.experts import with_edited_experts
from transparent_llm_server.models.interventions.freezing import norm_rewrites
from transparent_llm_server.models.interventions.multiplied import require_few_runs
from transparent_llm_server.models.interventions.operations import function_of
from transparent_llm_server.models.interventions.selection import require_few_places, select
from transparent_llm_server.models.interventions.sites import checked_site, mixed
from transparent_llm_server.models.interventions.sources import Sources

_Kept = dict[Any, torch.Tensor]

_SHAPED_AS_ONE = {
    "residual_in": SiteKind.RESIDUAL_IN,
    "residual_out": SiteKind.RESIDUAL_OUT,
    "neurons": SiteKind.NEURONS,
    "ffn_out": SiteKind.FFN_OUT,
}
"""Field of a capture -> the site that is that tensor and no more."""

_OF_ONE_HEAD = {"query": SiteKind.QUERY, "key": SiteKind.KEY}
"""The same of tensors [batch head pos d]."""


class Edits:
    """Of one run, checked against the model and the lengths of its rows.

    Raises:
        IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
        NotSupportedError: the model has nothing at a site.
        InvalidRequestError: nothing is selected, or a source is of another model.
        TooLargeError: too many places are selected, or runs that queries and keys are taken from.
    """

    def __init__(self, model: BridgedModel, edits: Sequence[Intervention], lengths: Sequence[int]) -> None:
        require_few_places(edits, lengths)
        require_few_runs(edits)
        self._model, sources = model, Sources(model)
        self._n_pos = max(lengths, default=0)
        self._edits = [checked_edit(model, edit, lengths, sources) for edit in edits]
        self._made: list[Sequence[Edit]] = []

    @property
    def effects(self) -> tuple[EditEffect, ...]:
        """What each did, in the order in which they were given. After all passes."""
        found = (
            [each.effect for each in of_edit if each.effect is not None] for of_edit in zip(*self._made, strict=True)
        )
        return tuple(together(effects) for effects in found)

    def run(self, batch: Batch) -> Capture:
        """Run the batch, rows that cannot share a pass in passes of their own."""
        parts = batch.split(self._model.regimes)
        if len(parts) == 1:
            return self._passed(batch, EditedPass(self._model, self._edits))
        if any(isinstance(self._model.layers[edit.site.layer].neurons, ExpertNeurons) for edit in self._of_neurons):
            raise NotSupportedError(
                f"rows of {sorted(set(batch.lengths))} tokens have passes of their own in this model: edit neurons of "
                "experts in rows that share one"
            )
        passes = []
        for rows, part in parts:
            edits = [edit.within(rows, part.tokens.shape[1], self._n_pos) for edit in self._edits]
            passes.append((rows, self._passed(part, EditedPass(self._model, edits, keeps=True))))
        self._model.edits.require_unchanged(passes[0][1].generation)  # nobody has changed the model between them
        return Capture.of_passes(batch.tokens, batch.mask, passes)

    @property
    def _of_neurons(self) -> list[Edit]:
        return [edit for edit in self._edits if edit.site.kind is SiteKind.NEURONS]

    def _passed(self, batch: Batch, edited: EditedPass) -> Capture:
        self._made.append(edited.edits)
        capture = self._model.forward(batch.tokens, batch.mask, edited.rewrites(batch.tokens.shape))
        scale = edited.final_scale(capture.residual_out)
        return capture if scale is None else replace(capture, final_scale=scale)


def checked_edit(model: BridgedModel, edit: Intervention, lengths: Sequence[int], sources: Sources) -> Edit:
    """An edit of a run whose rows have so many tokens, its sources looked up now. Raises: as `Edits`."""
    site, selected = checked_site(model, edit.site), select(edit, lengths)
    return Edit(edit, site, selected, function_of(edit, site, selected, sources))


@dataclass(frozen=True)
class EditedPass:
    """One forward pass with edits that were checked."""

    model: BridgedModel
    edits: Sequence[Edit]
    keeps: bool = False
    """Also what did not change, as another pass has it too."""

    def rewrites(self, batch_pos: Sequence[int]) -> Rewrites:
        """What becomes of the tensors of a pass of so many rows and positions."""
        found: dict[Passing, Rewrite] = {}
        for i, layer in enumerate(self.model.layers):
            of_layer = [edit for edit in self.edits if edit.site.layer == i]
            found |= _OfLayer(layer, i, tuple(batch_pos), of_layer, self.keeps).rewrites()
        return found

    def final_scale(self, residual_out: torch.Tensor) -> torch.Tensor | None:
        """What the final norm divides by [batch pos 1], if not what it would; of the stream as it leaves the blocks."""
        final = [edit for edit in self.edits if edit.site.kind is SiteKind.FINAL_NORM_SCALE]
        norm = self.model.final_norm
        if not final or norm is None:
            return None
        own = norm.scale(residual_out)
        scale = all_made(final, own)
        return None if scale is own and not self.keeps else scale


@dataclass(frozen=True)
class _OfLayer:
    layer: Layer
    index: int
    batch_pos: tuple[int, ...]
    edits: Sequence[Edit]
    keeps: bool
    """Also what did not change, as another pass has it too."""

    def rewrites(self) -> dict[Passing, Rewrite]:
        """Of each tensor that these edits change."""
        found: dict[Passing, Rewrite] = {}
        for name, kind in _SHAPED_AS_ONE.items():
            if edits := self._of(kind):
                found[self._at(name)] = partial(self._changed, name, edits)
        if isinstance(self.layer.neurons, ExpertNeurons):
            found.pop(self._at("neurons"), None)  # there it is what the layer is given
            if edits := self._of(SiteKind.NEURONS):
                found[self._at("experts_out")] = partial(self._experts, self.layer.neurons, edits)
        for name, kind in _OF_ONE_HEAD.items():
            if edits := self._of(kind):
                found[self._at(name)] = partial(self._of_heads, name, edits)
        if edits := self._of(SiteKind.VALUE):
            found[self._at("value")] = partial(self._values, edits)
        if self._of(SiteKind.PATTERN):
            found[self._at("pattern")] = self._attended
        elif self._of(SiteKind.HEAD):
            found[self._at("z")] = self._mixed
        if self._of(SiteKind.ATTN_OUT, SiteKind.RESIDUAL_AFTER_ATTN):
            found[self._at("attn_out")] = self._added
        return found | norm_rewrites(self.layer, self.index, self.batch_pos, self.edits, keeps=self.keeps)

    def _of(self, *kinds: SiteKind) -> list[Edit]:
        return [edit for edit in self.edits if edit.site.kind in kinds]

    def _at(self, name: str) -> Passing:
        return Passing(self.index, name)

    def _changed(self, name: str, edits: Sequence[Edit], tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        shaped = tensor.reshape(*self.batch_pos, -1)  # some families have one axis for rows and positions
        changed = all_made(edits, shaped)
        if changed is shaped:
            return tensor
        kept[self._at(name)] = changed.reshape(tensor.shape)
        return kept[self._at(name)]

    def _experts(
        self, neurons: ExpertNeurons, edits: Sequence[Edit], tensor: torch.Tensor, kept: _Kept
    ) -> torch.Tensor:
        """What a mixture of experts gives."""
        kept.pop(self._at("experts_out"), None)

        def keep(activations: torch.Tensor, index: torch.Tensor) -> None:
            kept[self._at("expert_activations")], kept[self._at("expert_index")] = activations, index

        given, gives = (each.reshape(*self.batch_pos, -1) for each in (kept[self._at("neurons")], tensor))
        changed = with_edited_experts(neurons, edits, given, gives, keep)
        return tensor if changed is gives else changed.reshape(tensor.shape)

    def _of_heads(self, name: str, edits: Sequence[Edit], tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """Queries or keys [batch head pos d]."""
        by_pos = changed = tensor.transpose(1, 2)
        for edit in edits:
            changed = _of_heads(edit, changed)
        if changed is not by_pos or self.keeps:
            kept[self._at(name)] = changed
        return tensor if changed is by_pos else changed.transpose(1, 2)

    def _values(self, edits: Sequence[Edit], tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """Values, which some families compute with one axis for all heads."""
        shaped = changed = tensor.reshape(*self.batch_pos, self.layer.n_kv_heads, -1)
        for edit in edits:
            changed = _of_heads(edit, changed)
        if changed is shaped:
            return tensor
        kept[self._at("value")] = changed.reshape(tensor.shape)
        return kept[self._at("value")]

    def _mixed(self, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What the heads mixed, on its way to the output weights."""
        z = tensor.reshape(*self.batch_pos, self.layer.heads.n_heads, -1)
        changed = self._edited_heads(z, kept)
        return tensor if changed is z else changed.reshape(tensor.shape)

    def _edited_heads(self, z: torch.Tensor, kept: _Kept) -> torch.Tensor:
        changed = z
        is_edited = torch.zeros(z.shape[:3], dtype=torch.bool, device=z.device)
        factor = torch.ones(z.shape[:3], dtype=torch.float64, device=z.device)
        for edit in self._of(SiteKind.HEAD):
            made = _of_heads(edit, changed)
            if made is not changed:
                changed = made
                by = edit.edit.operation.factor if isinstance(edit.edit.operation, Scale) else math.nan
                for head in range(z.shape[2]) if edit.site.head is None else [edit.site.head]:
                    at = edit.selected.rows, edit.selected.positions, head
                    is_edited[at] = True
                    factor[at] *= by
        kept.pop(self._at("z"), None)  # what is not edited is pattern times value
        if changed is not z or self.keeps:
            kept[self._at("z")], kept[self._at("z_is_edited")] = changed, is_edited
            kept[self._at("z_factor")] = factor
        return changed

    def _attended(self, pattern: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention gives more than it did, with another pattern and what is changed of the heads' mixtures."""
        edited = by_query = pattern.transpose(1, 2)  # [batch query_pos head key_pos]
        for edit in self._of(SiteKind.PATTERN):
            edited = _of_heads(edit, edited)
        edited = pattern if edited is by_query else edited.transpose(1, 2).contiguous()
        value = self.layer.shaped("value", kept[self._at("value")], self.batch_pos)
        before, after = mixed(pattern, value), mixed(edited, value)
        z = self._edited_heads(after, kept)
        if edited is pattern and z is after:
            return pattern
        kept[self._at("pattern")] = edited
        project = self.layer.output_projection
        more = project(z.flatten(2)) - project(before.flatten(2))
        return self._more_added(more, kept) if self._at("attn_out") in kept else more

    def _more_added(self, more: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention gives more, where what it adds has passed before its pattern does."""
        by = self.layer.multiplier or 1.0
        before = kept[self._at("attn_out")].reshape(*self.batch_pos, -1)
        added = before + by * more
        kept[self._at("attn_out")] = added
        edited = self._of(SiteKind.ATTN_OUT, SiteKind.RESIDUAL_AFTER_ATTN)
        return (self._added(added, kept) - before) / by if edited else more

    def _added(self, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention adds; and the stream after it, which is what it adds to the stream before."""
        if self._of(SiteKind.PATTERN) and self._at("pattern") not in kept:  # its pattern comes first: `_more_added`
            return tensor
        shaped = tensor.reshape(*self.batch_pos, -1)
        added = all_made(self._of(SiteKind.ATTN_OUT), shaped)
        kept[self._at("attn_out")] = added
        of_stream = self._of(SiteKind.RESIDUAL_AFTER_ATTN)
        passed = added
        if of_stream:
            before = kept[self._at("residual_in")]
            stream = before + added
            changed = all_made(of_stream, stream)
            if changed is not stream:
                more = (wide(added) + (wide(changed) - wide(stream))).to(added.dtype)
                passed = torch.where(changed == stream, added, more)
            if changed is not stream or self.keeps:
                kept[self._at("residual_mid")] = before + passed
        return tensor if passed is shaped else passed.reshape(tensor.shape)


def _of_heads(edit: Edit, tensor: torch.Tensor) -> torch.Tensor:
    """What an edit of one head, or of all, makes of [batch pos head d]: itself if nothing changes."""
    head = edit.site.head
    of_edit = tensor.flatten(2) if head is None else tensor[:, :, head]
    made = edit.made(of_edit)
    if made is of_edit:
        return tensor
    if head is None:
        return made.reshape(tensor.shape)
    changed = tensor.clone()
    changed[:, :, head] = made
    return changed
