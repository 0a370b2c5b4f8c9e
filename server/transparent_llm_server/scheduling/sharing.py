"""Runs of several clients in one forward pass."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Sharing:
    """Whether runs of several clients share a forward pass. Their values then differ from single ones by rounding."""

    positions: int = 0
    """The most, padding included, in one forward pass. 0: every run has its own."""

    window_s: float = 0.0
    """How long the model waits for more once a run's turn has come."""
