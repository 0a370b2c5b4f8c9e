"""Tensors as raw little-endian bytes in C order: in one message, or as a header and chunks.

chunks(...) --TensorChunk, TensorChunk, ...--> Assembler.add(...) -> Assembler.tensor()
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator, Sequence

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2


class ShapeError(ValueError):
    """A shape that no tensor can have."""


def raw_bytes(tensor: torch.Tensor, start: int = 0, stop: int | None = None) -> bytes:
    """Bytes `start` to `stop` of a contiguous CPU tensor."""
    assert tensor.is_contiguous(), "raw bytes are those of a contiguous tensor"
    assert tensor.device.type == "cpu", "raw bytes are those of a CPU tensor"
    stop = tensor.nbytes if stop is None else min(stop, tensor.nbytes)
    return ctypes.string_at(tensor.data_ptr() + start, stop - start) if stop > start else b""


def from_bytes(data: bytearray, dtype: torch.dtype, shape: Sequence[int]) -> torch.Tensor:
    """A tensor on the buffer itself, which it keeps alive.

    Raises:
        ShapeError: no tensor can have this shape, empty or not.
    """
    if not data:
        try:
            return torch.empty(tuple(shape), dtype=dtype)
        except (TypeError, RuntimeError):  # an axis, or a stride, past 64 bits
            raise ShapeError(f"no tensor can have the shape {list(shape)}") from None
    return torch.frombuffer(data, dtype=dtype).reshape(tuple(shape))


def encode(tensor: torch.Tensor) -> tensor_pb2.Tensor:
    """A small tensor as one message."""
    held = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous()
    return tensor_pb2.Tensor(dtype=dtypes.to_wire(held.dtype), shape=held.shape, data=raw_bytes(held))


def decode(message: tensor_pb2.Tensor) -> torch.Tensor:
    """The tensor in a message, which may come from anyone.

    Raises:
        InvalidRequestError: an unknown dtype, or a number of bytes that is not what the shape needs.
    """
    dtype = dtypes.from_wire(message.dtype)
    needed = math.prod(message.shape) * dtype.itemsize
    if len(message.data) != needed:
        raise InvalidRequestError(
            f"a {dtypes.name(dtype)} tensor of shape {list(message.shape)} has {needed} bytes, got {len(message.data)}",
            reason="INVALID_SHAPE",
            metadata={"expected": str(needed), "got": str(len(message.data))},
        )
    try:
        return from_bytes(bytearray(message.data), dtype, message.shape)
    except ShapeError as error:
        metadata = {"expected": "a shape", "got": str(list(message.shape))}
        raise InvalidRequestError(str(error), reason="INVALID_SHAPE", metadata=metadata) from None


def header(tensor: torch.Tensor, name: str, dims: Sequence[str], etag: str) -> tensor_pb2.TensorHeader:
    """Describes `tensor` as it will be sent."""
    return tensor_pb2.TensorHeader(
        name=name,
        dtype=dtypes.to_wire(tensor.dtype),
        shape=tensor.shape,
        dims=dims,
        total_bytes=tensor.nbytes,
        etag=etag,
    )


def chunks(
    tensor: torch.Tensor, head: tensor_pb2.TensorHeader, *, chunk_bytes: int, offset: int = 0
) -> Iterator[tensor_pb2.TensorChunk]:
    """The messages of one contiguous CPU tensor from byte `offset` on; the first has the header, and data if any."""
    yield tensor_pb2.TensorChunk(header=head, offset=offset, data=raw_bytes(tensor, offset, offset + chunk_bytes))
    for start in range(offset + chunk_bytes, tensor.nbytes, chunk_bytes):
        yield tensor_pb2.TensorChunk(offset=start, data=raw_bytes(tensor, start, start + chunk_bytes))


class StreamError(Exception):
    """A stream that does not follow tensor.proto: the peer is broken or speaks another protocol."""


class Assembler:
    """Puts one tensor together from its chunks: one allocation, each chunk written at its offset.

    `received` and `etag` are what a request for the rest needs after a cut.
    """

    def __init__(self) -> None:
        self.header: tensor_pb2.TensorHeader | None = None
        self.received = 0
        self._buffer = bytearray()
        self._dtype = torch.float32

    @property
    def etag(self) -> str:
        """The etag of the stream so far; empty before its header."""
        return self.header.etag if self.header is not None else ""

    @property
    def total_bytes(self) -> int:
        """Size of the whole tensor; 0 before the header."""
        return int(self.header.total_bytes) if self.header is not None else 0

    @property
    def complete(self) -> bool:
        """Whether every byte is there."""
        return self.header is not None and self.received == self.header.total_bytes

    def add(self, chunk: tensor_pb2.TensorChunk) -> None:
        """Take the next chunk.

        Raises:
            StreamError: no header yet, a gap, more data than announced, or a header that contradicts itself.
        """
        if chunk.HasField("header"):
            self._begin(chunk.header)
        if self.header is None:
            raise StreamError("the stream began without a header")
        end = chunk.offset + len(chunk.data)
        if chunk.offset != self.received or end > self.total_bytes:
            raise StreamError(f"chunk {chunk.offset}..{end} after byte {self.received} of {self.total_bytes}")
        self._buffer[chunk.offset : end] = chunk.data
        self.received = end

    def tensor(self) -> torch.Tensor:
        """The finished tensor, on the CPU."""
        if self.header is None or not self.complete:
            raise StreamError(f"the stream ended at byte {self.received} of {self.total_bytes}")
        try:
            return from_bytes(self._buffer, self._dtype, self.header.shape)
        except ShapeError as error:
            raise StreamError(str(error)) from None

    def _begin(self, head: tensor_pb2.TensorHeader) -> None:
        if self.header is not None and head.etag == self.header.etag:
            if head != self.header:
                raise StreamError("a second header with the same etag describes another tensor")
            return  # the same bits go on where the cut was
        if head.dtype not in dtypes.TORCH_BY_WIRE:
            raise StreamError(f"unknown dtype {head.dtype} in the header")
        dtype = dtypes.TORCH_BY_WIRE[head.dtype]
        if math.prod(head.shape) * dtype.itemsize != head.total_bytes or len(head.dims) != len(head.shape):
            what = f"{dtypes.name(dtype)} {list(head.shape)} {list(head.dims)}"
            raise StreamError(f"header contradicts itself: {what} in {head.total_bytes} bytes")
        self.header, self._dtype = head, dtype
        try:
            self._buffer = bytearray(head.total_bytes)
        except (MemoryError, OverflowError):
            raise StreamError(f"no memory for the {head.total_bytes} bytes that were announced") from None
        self.received = 0
