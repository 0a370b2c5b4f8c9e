"""One edit, checked and with its numbers looked up: what it makes of a tensor, and what it did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.interventions.selection import Selection

Function = Callable[[torch.Tensor], torch.Tensor]
"""Of x [n d] in float32 at least."""


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
        if not self.selected.rows:
            return tensor
        before = tensor[rows, positions]
        units = None if self.site.neurons is None else torch.tensor(self.site.neurons, device=tensor.device)
        x = before if units is None else before[:, units]
        y = self.function(wide(x)).to(x.dtype)
        if self.site.kind is SiteKind.PATTERN:
            y = torch.where(x == 0, x, y)  # what a query may not see
        self.effect = _effect(self.edit, x.detach(), y.detach())
        if not (self.effect.changed or x.requires_grad):  # the same number may have another derivative
            return tensor
        if units is not None:
            before = before.index_copy(1, units, y)
        changed = tensor.clone()
        changed[rows, positions] = y if units is None else before
        return changed

    def placed(self, nth: Mapping[tuple[int, int], int]) -> Edit:
        """The same edit of [1 n d], where a row and position is the nth of n."""
        whole = self.selected
        places = tuple(nth[place] for place in zip(whole.rows, whole.positions, strict=True))
        selected = Selection((0,) * len(places), places, whole.nth_row, whole.nth_position)
        return Edit(self.edit, self.site, selected, self.function)

    def within(self, rows: Sequence[int], n_pos: int, all_pos: int) -> Edit:
        """The same edit of some rows of the batch, cut to so many positions, in a pass of their own."""
        nth_of_row = {row: n for n, row in enumerate(rows)}
        chosen = [n for n, row in enumerate(self.selected.rows) if row in nth_of_row]
        whole = self.selected
        selected = Selection(
            tuple(nth_of_row[whole.rows[n]] for n in chosen),
            tuple(whole.positions[n] for n in chosen),
            tuple(whole.nth_row[n] for n in chosen),
            tuple(whole.nth_position[n] for n in chosen),
        )
        widened = (n_pos, all_pos) if self.site.kind is SiteKind.PATTERN else (1, 1)
        function = partial(_of_some, self.function, chosen, len(whole.rows), widened)
        return Edit(self.edit, self.site, selected, function)

    def repeated(self, n_copies: int, n_rows: int) -> Edit:
        """The same edit of so many copies of the rows, one after the other."""
        if n_copies == 1 or not self.selected.rows:
            return self
        whole, copies = self.selected, range(n_copies)
        rows = tuple(copy * n_rows + row for copy in copies for row in whole.rows)
        selected = Selection(rows, whole.positions * n_copies, whole.nth_row * n_copies, whole.nth_position * n_copies)
        return Edit(self.edit, self.site, selected, partial(_of_copies, self.function, n_copies))


def _of_copies(function: Function, n_copies: int, x: torch.Tensor) -> torch.Tensor:
    return torch.cat([function(part) for part in x.chunk(n_copies)])


def _of_some(
    function: Function, chosen: Sequence[int], count: int, widened: tuple[int, int], x: torch.Tensor
) -> torch.Tensor:
    """What a function of so many places makes of some of them; `widened`: how wide the last axis is, and is there."""
    of_all = x.new_zeros(count, x.shape[1] // widened[0], widened[1])
    of_all[list(chosen), :, : widened[0]] = x.reshape(len(chosen), -1, widened[0])
    made = function(of_all.flatten(1)).reshape(of_all.shape)
    return made[list(chosen), :, : widened[0]].reshape(x.shape)


def together(effects: Sequence[EditEffect]) -> EditEffect:
    """What one edit did, in several passes."""
    return EditEffect(
        edit=effects[0].edit,
        selected=sum(effect.selected for effect in effects),
        changed=sum(effect.changed for effect in effects),
        delta_norm=math.hypot(*(effect.delta_norm for effect in effects)),
        norm=math.hypot(*(effect.norm for effect in effects)),
        max_delta=max(effect.max_delta for effect in effects),
    )


def all_made(edits: Sequence[Edit], tensor: torch.Tensor) -> torch.Tensor:
    """Of a tensor [batch pos d], each edit of what the one before left: itself if nothing changes."""
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
