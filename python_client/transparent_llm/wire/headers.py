"""Headers of tensors that came from elsewhere, looked at before memory is allocated or anything is made of them."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from transparent_llm.quoting import listed, quoted
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.protocol_error import ProtocolError
from transparent_llm.wire.shape import ShapeError, checked_shape

_LONGEST_NAME, _LONGEST_ETAG = 128, 256
"""Characters: an etag is sent back after a break."""


class Header(NamedTuple):
    """What is known of a tensor before any of it has come."""

    name: str
    """Of its method, and of the factor of its value that it is, if it is one: "METHOD.FACTOR"."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    """The names of its axes."""

    total_bytes: int


def checked_header(head: tensor_pb2.TensorHeader) -> Header:
    """What a header tells.

    Raises:
        ProtocolError: it contradicts itself, or tells of what cannot be.
    """
    if head.dtype not in dtypes.TORCH_BY_WIRE:
        raise ProtocolError(f"unknown dtype {head.dtype} in the header")
    try:
        dtype, shape, dims = dtypes.TORCH_BY_WIRE[head.dtype], checked_shape(head.shape), tuple(head.dims)
    except ShapeError as error:
        raise ProtocolError(str(error)) from None
    if math.prod(shape) * dtype.itemsize != head.total_bytes or len(dims) != len(shape):
        what = f"{dtypes.name(dtype)} {list(shape)} {listed(dims)}"
        raise ProtocolError(f"header contradicts itself: {what} in {head.total_bytes} bytes")
    if len(head.etag) > _LONGEST_ETAG or max(map(len, (head.name, *dims))) > _LONGEST_NAME:
        raise ProtocolError(f"no tensor has such names: {quoted(head.name)} {listed(dims)} {quoted(head.etag)}")
    return Header(head.name, dtype, shape, dims, head.total_bytes)
