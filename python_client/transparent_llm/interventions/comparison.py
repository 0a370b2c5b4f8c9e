"""What two runs of one model say of the next token."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RowComparison:
    """Of one row of a run beside the same row of another, each at its last token."""

    kl: float
    """KL(run || other) of the next token, in nats, summed in float64: 0 where both say the same."""

    top_token: int
    """The most likely next token of the run."""

    top_string: str
    """Its text."""

    other_top_token: int
    """The most likely next token of the other."""

    other_top_string: str
    """Its text."""

    kl_by_pos: tuple[float, ...] = ()
    """The same divergence at each position from the one that was asked for to the last token; empty if none was."""

    @property
    def top_changed(self) -> bool:
        """Whether they differ in the most likely token."""
        return self.top_token != self.other_top_token
