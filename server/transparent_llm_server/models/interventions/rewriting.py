"""Edits on the way of a forward pass: what becomes of the tensors that pass the taps of each layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.passes import Rewrites
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.operations import Function, function_of
from transparent_llm_server.models.interventions.selection import Selection, require_few_places, select
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


@dataclass
class Edit:
    """One edit of a run, ready to be made, and what it did once it was."""

    edit: Intervention
    site: Site
    selected: Selection
    function: Function
    effect: EditEffect | None = field(default=None)

    def made(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a tensor [batch pos d]: itself if nothing changes, else another one."""
        rows, positions = (
            torch.tensor(axis, device=tensor.device) for axis in (self.selected.rows, self.selected.positions)
        )
        before = tensor[rows, positions]
        units = None if self.site.neurons is None else torch.tensor(self.site.neurons, device=tensor.device)
        x = before if units is None else before[:, units]
        y = self.function(wide(x)).to(x.dtype)
        if self.site.kind is SiteKind.PATTERN:
            y = torch.where(x == 0, x, y)  # what a query may not see
        self.effect = _effect(self.edit, x, y)
        if not self.effect.changed:
            return tensor
        if units is not None:
            before = before.index_copy(1, units, y)
        changed = tensor.clone()
        changed[rows, positions] = y if units is None else before
        return changed


class Edits:
    """Of one run, checked against the model and the lengths of its rows.

    Raises:
        IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
        NotSupportedError: the model has nothing at a site.
        InvalidRequestError: nothing is selected, or a source is of another model.
        TooLargeError: too many places are selected.
    """

    def __init__(self, model: BridgedModel, edits: Sequence[Intervention], lengths: Sequence[int]) -> None:
        require_few_places(edits, lengths)
        self._model, sources = model, Sources(model)
        self._edits: list[Edit] = []
        for edit in edits:
            site, selected = checked_site(model, edit.site), select(edit, lengths)
            self._edits.append(Edit(edit, site, selected, function_of(edit, site, selected, sources)))

    @property
    def effects(self) -> tuple[EditEffect, ...]:
        """What each did, in the order in which they were given. After the pass."""
        return tuple(edit.effect for edit in self._edits if edit.effect is not None)

    def rewrites(self, batch_pos: Sequence[int]) -> Rewrites:
        """What becomes of the tensors of a pass of so many rows and positions."""
        found: dict[Passing, Rewrite] = {}
        for i, layer in enumerate(self._model.layers):
            of_layer = _OfLayer(layer, i, tuple(batch_pos), [edit for edit in self._edits if edit.site.layer == i])
            found |= of_layer.rewrites()
        return found


@dataclass(frozen=True)
class _OfLayer:
    layer: Layer
    index: int
    batch_pos: tuple[int, ...]
    edits: Sequence[Edit]

    def rewrites(self) -> dict[Passing, Rewrite]:
        """Of each tensor that these edits change."""
        found: dict[Passing, Rewrite] = {}
        for name, kind in _SHAPED_AS_ONE.items():
            if edits := self._of(kind):
                found[self._at(name)] = partial(self._changed, name, edits)
        if self._of(SiteKind.PATTERN):
            found[self._at("pattern")] = self._attended
        elif self._of(SiteKind.HEAD):
            found[self._at("z")] = self._mixed
        if self._of(SiteKind.ATTN_OUT, SiteKind.RESIDUAL_AFTER_ATTN):
            found[self._at("attn_out")] = self._added
        return found

    def _of(self, *kinds: SiteKind) -> list[Edit]:
        return [edit for edit in self.edits if edit.site.kind in kinds]

    def _at(self, name: str) -> Passing:
        return Passing(self.index, name)

    def _changed(self, name: str, edits: Sequence[Edit], tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        shaped = tensor.reshape(*self.batch_pos, -1)  # some families have one axis for rows and positions
        changed = _all(edits, shaped)
        if changed is shaped:
            return tensor
        kept[self._at(name)] = changed.reshape(tensor.shape)
        return kept[self._at(name)]

    def _mixed(self, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What the heads mixed, on its way to the output weights."""
        z = tensor.reshape(*self.batch_pos, self.layer.heads.n_heads, -1)
        changed = self._edited_heads(z, kept)
        return tensor if changed is z else changed.reshape(tensor.shape)

    def _edited_heads(self, z: torch.Tensor, kept: _Kept) -> torch.Tensor:
        changed, is_edited = z, torch.zeros(z.shape[:3], dtype=torch.bool, device=z.device)
        for edit in self._of(SiteKind.HEAD):
            of_head = changed[:, :, edit.site.head]
            made = edit.made(of_head)
            if made is not of_head:
                changed = changed.clone()
                changed[:, :, edit.site.head] = made
                is_edited[edit.selected.rows, edit.selected.positions, edit.site.head] = True
        kept.pop(self._at("z"), None)  # what is not edited is pattern times value
        if changed is not z:
            kept[self._at("z")], kept[self._at("z_is_edited")] = changed, is_edited
        return changed

    def _attended(self, pattern: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention gives more than it did, with another pattern and what is changed of the heads' mixtures."""
        edited = pattern
        for edit in self._of(SiteKind.PATTERN):
            of_head = edited[:, edit.site.head]
            changed = edit.made(of_head)
            if changed is not of_head:
                edited = edited.clone() if edited is pattern else edited
                edited[:, edit.site.head] = changed
        value = self.layer.shaped("value", kept[self._at("value")], self.batch_pos)
        before, after = mixed(pattern, value), mixed(edited, value)
        z = self._edited_heads(after, kept)
        if edited is pattern and z is after:
            return pattern
        kept[self._at("pattern")] = edited
        project = self.layer.output_projection
        return project(z.flatten(2)) - project(before.flatten(2))

    def _added(self, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
        """What attention adds; and the stream after it, which is what it adds to the stream before."""
        shaped = tensor.reshape(*self.batch_pos, -1)
        added = _all(self._of(SiteKind.ATTN_OUT), shaped)
        kept[self._at("attn_out")] = added
        of_stream = self._of(SiteKind.RESIDUAL_AFTER_ATTN)
        passed = added
        if of_stream:
            before = kept[self._at("residual_in")]
            stream = before + added
            changed = _all(of_stream, stream)
            if changed is not stream:
                more = (wide(added) + (wide(changed) - wide(stream))).to(added.dtype)
                passed = torch.where(changed == stream, added, more)
                kept[self._at("residual_mid")] = before + passed
        return tensor if passed is shaped else passed.reshape(tensor.shape)


def _all(edits: Sequence[Edit], tensor: torch.Tensor) -> torch.Tensor:
    for edit in edits:
        tensor = edit.made(tensor)
    return tensor


def _effect(edit: Intervention, x: torch.Tensor, y: torch.Tensor) -> EditEffect:
    delta = wide(y) - wide(x)
    return EditEffect(
        edit=str(edit),
        selected=x.numel(),
        changed=int((y != x).sum()),
        delta_norm=float(delta.norm()),
        norm=float(wide(x).norm()),
        max_delta=float(delta.abs().max()),
    )
