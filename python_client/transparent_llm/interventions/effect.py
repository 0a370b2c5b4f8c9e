"""What an edit did in a run."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class EditEffect:
    """Of one edit of a run. One that changed nothing is no error, and this is where it shows."""

    edit: str
    """The edit in words."""

    selected: int
    """Elements that it had before it."""

    changed: int
    """Elements that are other numbers afterwards."""

    delta_norm: float
    """L2 norm of all that was added."""

    norm: float
    """L2 norm of the selected elements before."""

    max_delta: float
    """The largest change of one element."""

    @property
    def relative(self) -> float:
        """The norm of the change over that of what was changed; 0 where both are 0."""
        return self.delta_norm / self.norm if self.norm else (float("inf") if self.delta_norm else 0.0)
