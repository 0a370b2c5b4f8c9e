"""`TensorChunk` messages made and read by hand: the same bytes as the generated code's, with one copy less on each end.

A tensor's elements are joined to the few bytes in front of them in one step, and read where gRPC put them.
"""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch

from transparent_llm.wire._gen import tensor_pb2

_HEADER, _OFFSET, _DATA = b"\x0a", b"\x10", b"\x1a"
"""Tags of the fields 1 (message), 2 (varint) and 3 (bytes)."""

LARGEST_FRAME_BYTES = 2**24 - 1
"""Of HTTP/2 (RFC 9113, 4.2), for both ends: a message in one frame, not in 64."""

NO_COMPRESSION = ("grpc.compression_enabled_algorithms_bitset", 1)
"""For channels and servers: messages are taken as they are, as half a megabyte may unpack to 512 MB, and many versions
of gRPC unpack before they look at the size."""

_LENGTH_BYTES, _NUMBER_BYTES = 4, 9
"""Of the longest length and the longest number that are read here."""


class Frame(NamedTuple):
    """A chunk as it arrived."""

    header: bytes | None
    """A serialized TensorHeader, if the chunk has one."""

    offset: int
    data: memoryview | bytes
    shared: tuple[int, int] | None = None
    """(slot, size) of data that lie in shared memory."""


def frame(header: bytes | None, offset: int, data: memoryview | bytes) -> bytes:
    """A serialized TensorChunk with these fields."""
    parts = [] if header is None else [_HEADER, _varint(len(header)), header]
    if offset:
        parts += (_OFFSET, _varint(offset))
    if len(data):
        parts += (_DATA, _varint(len(data)))
    return b"".join((*parts, data))


def shared_frame(header: bytes | None, offset: int, slot: int, size: int) -> bytes:
    """A serialized TensorChunk whose data lie in shared memory."""
    shared = tensor_pb2.SharedPiece(slot=slot, size=size)
    encoded: bytes = tensor_pb2.TensorChunk(shared=shared).SerializeToString()
    return frame(header, offset, b"") + encoded


def parse(message: bytes) -> Frame:
    """Read a serialized TensorChunk.

    Raises:
        google.protobuf.message.DecodeError: these bytes are no such message.
    """
    header, offset, position, end = None, 0, 0, len(message)
    try:
        if position < end and message[position] == 0x0A:
            size, position = _read_varint(message, position + 1, _LENGTH_BYTES)
            header, position = message[position : position + size], position + size
        if position < end and message[position] == 0x10:
            offset, position = _read_varint(message, position + 1, _NUMBER_BYTES)
        if position == end:
            return Frame(header, offset, b"")
        if message[position] == 0x1A:
            size, position = _read_varint(message, position + 1, _LENGTH_BYTES)
            if position + size == end:
                return Frame(header, offset, memoryview(message)[position:])
    except IndexError:
        pass
    return _parsed_by_generated_code(message)


def bytes_of(tensor: torch.Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor, which the caller keeps alive."""
    assert tensor.is_contiguous(), "raw bytes are those of a contiguous tensor"
    assert tensor.device.type == "cpu", "raw bytes are those of a CPU tensor"
    if not tensor.nbytes:
        return memoryview(bytearray())
    return memoryview((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr())).cast("B")


def _parsed_by_generated_code(message: bytes) -> Frame:
    """Data in shared memory; fields in another order, twice, or from a newer schema."""
    chunk = tensor_pb2.TensorChunk.FromString(message)
    header = chunk.header.SerializeToString() if chunk.HasField("header") else None
    shared = (chunk.shared.slot, chunk.shared.size) if chunk.HasField("shared") else None
    return Frame(header, chunk.offset, chunk.data, shared)


def _varint(number: int) -> bytes:
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _read_varint(message: bytes, position: int, most_bytes: int) -> tuple[int, int]:
    """(number, position behind it); one that is longer than it ever need be is left to the generated code."""
    number = shift = 0
    while True:
        byte = message[position]
        position += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, position
        shift += 7
        if shift >= 7 * most_bytes:
            raise IndexError
