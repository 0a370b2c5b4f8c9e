"""What the edits of a run did, and what became of each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import overload

from transparent_llm.interventions.comparison import RowComparison
from transparent_llm.interventions.effect import EditEffect
from transparent_llm.table import Table, Tabular


@dataclass(frozen=True)
class Effects(Tabular, Sequence[EditEffect]):
    """Of a run, as a sequence of what each edit did, in their order. `print` and notebooks show it all as a table."""

    edits: tuple[EditEffect, ...]
    """What each edit did."""

    rows: tuple[RowComparison, ...]
    """Of each row of the run, what it says of the next token after its last one, beside the same row unedited. A run
    without edits has none."""

    @property
    def is_none(self) -> bool:
        """Whether the edits changed nothing: no element is another number than it would have been."""
        return not any(effect.changed for effect in self.edits)

    @overload
    def __getitem__(self, index: int) -> EditEffect: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[EditEffect]: ...

    def __getitem__(self, index: int | slice) -> EditEffect | Sequence[EditEffect]:
        return self.edits[index]

    def __len__(self) -> int:
        return len(self.edits)

    def table(self) -> Table:
        """A line for each edit and for each row."""
        said = " (no effect: nothing was changed)" if self.is_none else ""
        of_edits = [_of_edit(effect) for effect in self.edits]
        of_rows = [_of_row(row, comparison) for row, comparison in enumerate(self.rows)]
        return Table.of(f"{len(self.edits)} edits{said}", ("of", "effect"), [*of_edits, *of_rows])


def _of_edit(effect: EditEffect) -> tuple[str, str]:
    if not effect.changed:
        return effect.edit, f"no effect: none of {effect.selected} elements changed"
    norms = f"by {effect.delta_norm:.4g}, where {effect.norm:.4g} was (L2 norms)"
    return effect.edit, f"changed {effect.changed} of {effect.selected} elements {norms}"


def _of_row(row: int, comparison: RowComparison) -> tuple[str, str]:
    if comparison.top_changed:
        tokens = f"top token {comparison.top_string!r}, was {comparison.other_top_string!r}"
    else:
        tokens = f"top token {comparison.top_string!r} as before"
    return f"row {row}", f"KL {comparison.kl:.4g} nats, {tokens}"
