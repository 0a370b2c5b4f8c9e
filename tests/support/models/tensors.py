"""Tensors compared bit for bit, and any tensor that can travel."""

from __future__ import annotations

import math

import torch
from hypothesis import strategies as st

from transparent_llm.wire import dtypes


def bits(tensor: torch.Tensor) -> bytes:
    """Its elements in C order, read without the code under test."""
    return bytes(tensor.reshape(-1).view(torch.uint8).tolist())


def assert_same_bits(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.dtype is expected.dtype
    assert got.shape == expected.shape
    assert bits(got) == bits(expected)


@st.composite
def any_tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits at all: every NaN payload, both zeros, subnormals, infinities."""
    dtype = draw(st.sampled_from(list(dtypes.WIRE_BY_TORCH)))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    held = bytearray(byte & 1 for byte in data) if dtype is torch.bool else bytearray(data)
    return torch.frombuffer(held, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)
