"""One edit, checked and with its numbers looked up: what it makes of a tensor, and what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from transparent_llm.interventions import EditEffect, Intervention
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.interventions.operations import Function
from transparent_llm_server.models.interventions.selection import Selection


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
