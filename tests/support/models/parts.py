"""Any part of a value, and its pieces put together again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from hypothesis import strategies as st

from transparent_llm_server.models.values.value import Value


@st.composite
def any_slice(draw: st.DrawFn, size: int) -> slice:
    """Within an axis, often with something in it; steps may be longer than the axis."""
    start = draw(st.integers(0, size))
    stop = draw(st.integers(start, size) | st.just(size) | st.integers(0, size))
    return slice(start, stop, draw(st.integers(1, 3) | st.integers(1, size + 1)))


@st.composite
def indices(draw: st.DrawFn, shape: Sequence[int]) -> tuple[slice, ...]:
    """One slice for each axis, as they come from requests: starts and stops within the axis, steps of 1 or more."""
    return tuple(draw(any_slice(size)) for size in shape)


def joined(value: Value, max_bytes: int) -> torch.Tensor:
    """All pieces in their order, each of which must have the shape and the dtype that were announced."""
    parts = [torch.empty(0, dtype=value.dtype)]
    for piece in value.pieces(max_bytes):
        part = piece.compute()
        assert tuple(part.shape) == piece.shape
        assert part.dtype is value.dtype
        parts.append(part.reshape(-1))
    return torch.cat(parts).reshape(value.shape)
