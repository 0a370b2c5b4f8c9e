"""The standard batch of the contract suite, and how close is close."""

from __future__ import annotations

import torch

ROWS = [list(range(5, 21)), [9, 8, 7, 6, 5], [3, 4, 3]]
"""Token ids: the first row is longer than every sliding window in the families."""

LENGTHS = tuple(len(row) for row in ROWS)
MAX_ERROR = 1e-5


def assert_close(got: torch.Tensor, wanted: torch.Tensor) -> None:
    """Same shape, float32, within `MAX_ERROR` everywhere."""
    assert got.shape == wanted.shape
    assert got.dtype == torch.float32
    assert (got - wanted).abs().max().item() <= MAX_ERROR
