"""Edits of one layer, on the way of a forward pass."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from transparent_llm.interventions.operation import Scale
from transparent_llm.interventions.site import SiteKind
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit, all_made
from transparent_llm_server.models.interventions.experts import with_edited_experts
from transparent_llm_server.models.interventions.freezing import norm_rewrites
from transparent_llm_server.models.interventions.sites import mixed

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


@dataclass(frozen=True)
class EditsOfLayer:
    """Of one pass, and what becomes of the tensors of the layer after them: see `EditedPass`."""

    layer: Layer
    index: int
    batch_pos: tuple[int, ...]
    edits: Sequence[Edit]
    keeps: bool
    """Also what did not change, as another pass has it too."""

    after: Mapping[str, Rewrite]

    def rewrites(self) -> dict[Passing, Rewrite]:
        """Of each tensor that these edits change, or that is looked at after them."""
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
        if self._of(SiteKind.PATTERN) or "pattern" in self.after:
            found[self._at("pattern")] = self._attended
        if self._of(SiteKind.HEAD) and not self._is_attended:
            found[self._at("z")] = self._mixed
        if self._changes_added:
            found[self._at("attn_out")] = self._added
        found |= norm_rewrites(self.layer, self.index, self.batch_pos, self.edits, keeps=self.keeps)
        return self._looked_after(found)

    def _looked_after(self, found: dict[Passing, Rewrite]) -> dict[Passing, Rewrite]:
        """With what becomes of tensors after their edits, but where it is a part of these."""
        within = {"pattern", "attn_out", "attn_added", *(("z",) if self._is_attended else ())}
        for name, after in self.after.items():
            edited = found.get(self._at(name))
            if edited is None and name not in within:
                found[self._at(name)] = after
            elif edited is not None and name not in within and "_norm_" not in name:  # what is frozen is a constant
                found[self._at(name)] = partial(_one_after_the_other, edited, after)
        return found

    @property
    def _is_attended(self) -> bool:
        """Whether what heads mixed is edited by what it comes to."""
        return bool(self._of(SiteKind.PATTERN) or ("pattern" in self.after and self._of(SiteKind.HEAD)))

    @property
    def _changes_added(self) -> bool:
        edited = bool(self._of(SiteKind.ATTN_OUT, SiteKind.RESIDUAL_AFTER_ATTN))
        return edited or "attn_out" in self.after or "attn_added" in self.after

    def _looked(self, name: str, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        return self.after[name](tensor, kept) if name in self.after else tensor

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
        if not self._is_attended:  # what another pattern would give more is nothing, but by that pattern
            edited = pattern = pattern.detach()
            value = value.detach()
        edited = self._looked("pattern", edited, kept)
        before, after = mixed(pattern, value), mixed(edited, value)
        z = after
        if self._is_attended:
            z = self._looked("z", self._edited_heads(after, kept), kept)
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
        return (self._added(added, kept) - before) / by if self._is_attended and self._changes_added else more

    def _added(self, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention adds; and the stream after it, which is what it adds to the stream before."""
        if self._is_attended and self._at("pattern") not in kept:  # its pattern comes first: `_more_added`
            return tensor
        shaped = tensor.reshape(*self.batch_pos, -1)
        added = self._looked("attn_out", all_made(self._of(SiteKind.ATTN_OUT), shaped), kept)
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
                passed = passed.detach() + (more - more.detach()) if more.requires_grad else passed
        is_edited = passed is not added
        passed = self._looked("attn_added", passed, kept)
        if is_edited or "attn_added" in self.after or (of_stream and self.keeps):
            kept[self._at("residual_mid")] = kept[self._at("residual_in")].reshape(passed.shape) + passed
        return tensor if passed is shaped else passed.reshape(tensor.shape)


def _one_after_the_other(edited: Rewrite, after: Rewrite, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
    return after(edited(tensor, kept), kept)


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
