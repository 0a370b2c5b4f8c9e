"""Small tensors in one message, raw little-endian bytes in C order; and the headers of those that are streamed."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import listed
from transparent_llm.wire import dtypes, frames
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire._gen.tensor_pb2 import TensorHeader
from transparent_llm.wire.shape import MOST_AXES, ShapeError, checked_shape


def encode(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    """A small tensor as one message."""
    held = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return tensor_pb2.Tensor(dtype=dtypes.to_wire(held.dtype), shape=held.shape, data=bytes(frames.bytes_of(held)))


def decode(message: tensor_pb2.Tensor) -> torch.Tensor:
    """The tensor in a message, which may come from anyone.

    Raises:
        InvalidRequestError: an unknown dtype, a shape that no tensor has, or a number of bytes that is not what the
            shape needs.
    """
    dtype, shape, got = dtypes.from_wire(message.dtype), _shape(message), len(message.data)
    needed = math.prod(shape) * dtype.itemsize
    if got != needed:
        raise InvalidRequestError(
            f"a {dtypes.name(dtype)} tensor of shape {list(shape)} has {needed} bytes, got {got}",
            reason="INVALID_SHAPE",
            metadata={"expected": str(needed), "got": str(got)},
        )
    if not got:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(message.data), dtype=dtype).reshape(shape)


def _shape(message: tensor_pb2.Tensor) -> tuple[int, ...]:
    try:
        return checked_shape(message.shape)
    except ShapeError as error:
        raise InvalidRequestError(
            str(error),
            reason="INVALID_SHAPE",
            metadata={"expected": f"up to {MOST_AXES} axes", "got": listed(message.shape)},
        ) from None


def header_bytes(name: str, dtype: torch.dtype, shape: Sequence[int], dims: Sequence[str], etag: str) -> bytes:
    """The same message as `header`, serialized for a frame."""
    return header(name, dtype, shape, dims, etag).SerializeToString()


def header(name: str, dtype: torch.dtype, shape: Sequence[int], dims: Sequence[str], etag: str = "") -> TensorHeader:
    """Describes a tensor as it is sent, or would be."""
    total_bytes = math.prod(shape) * dtype.itemsize
    return TensorHeader(
        name=name, dtype=dtypes.to_wire(dtype), shape=shape, dims=dims, total_bytes=total_bytes, etag=etag
    )
