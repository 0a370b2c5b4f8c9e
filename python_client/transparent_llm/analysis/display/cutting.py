"""Pictures have a largest size: what is between the first and the last of an axis is left out, and said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Kept:
    """Which places of an axis a picture shows."""

    axis: str
    size: int
    indices: tuple[int, ...]
    """In order."""

    @classmethod
    def of(cls, axis: str, size: int, most: int) -> Kept:
        """All of them, or as many of the first as of the last."""
        if size <= most:
            return cls(axis, size, tuple(range(size)))
        first = most // 2
        return cls(axis, size, (*range(first), *range(size - (most - first), size)))

    @property
    def words(self) -> str:
        """What is not shown; empty if all is."""
        n = self.size - len(self.indices)
        if not n:
            return ""
        start = next((i for i, index in enumerate(self.indices) if i != index), len(self.indices))
        span = f" ({start} to {start + n - 1})" if n > 1 else f" ({start})"
        return f"{n:,} of {self.size:,} along {self.axis}{span} left out"


def left_out(parts: Iterable[str]) -> str:
    """One sentence of several, or none."""
    said = [part for part in parts if part]
    return f"Not all is shown: {'; '.join(said)}. The tensors have all of it." if said else ""
