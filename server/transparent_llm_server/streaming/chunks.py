"""From values to messages: cut, compute piece by piece, cast, copy, chunk. Nothing is copied before it is cut."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import torch

from transparent_llm.errors import InternalError, InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm.selection import invalid_slice
from transparent_llm.wire import dtypes, frames, slices, tensors
from transparent_llm.wire import ring as shared_ring
from transparent_llm.wire.form import Delivery, Form
from transparent_llm.wire.methods import Method
from transparent_llm_server.models.values.value import Found, Piece, Value
from transparent_llm_server.streaming.host_copy import on_host
from transparent_llm_server.streaming.shared_memory import OfferedRing

PIECE_BYTES = 4 * 2**20
"""What is computed at a time of a value that does not lie in memory.

No setting: no value depends on it. One is in memory for each call that computes, and `max_streams` bounds those.
"""


@dataclass(frozen=True)
class ChunkSizes:
    """Data bytes in one message."""

    default: int
    most: int

    def choose(self, requested: int) -> int:
        """What a request gets; 0 asks for the default."""
        return min(requested or self.default, self.most)


@dataclass(frozen=True)
class Outgoing:
    """A tensor of a stream: what its header says, and the value."""

    name: str
    dims: tuple[str, ...]
    value: Value
    dtype: torch.dtype
    """On the wire."""

    def header(self, tag: str) -> bytes:
        """The message that is sent before its data."""
        return tensors.header_bytes(self.name, self.dtype, self.value.shape, self.dims, tag)

    @property
    def nbytes(self) -> int:
        """Data bytes that it has on the wire, all chunks together."""
        return math.prod(self.value.shape) * self.dtype.itemsize


Taker = Callable[[Value, Piece], torch.Tensor]
"""Computes a piece of a value, where and when that may be done."""


def etag(identity: str, request_name: str, arguments: object, form: Form) -> str:
    """Names the bits of a stream: the same only for the same value, cut, cast and encoded in the same way.

    `identity` names where the bits come from: one forward pass, or the weights.
    """
    text = f"{identity}/{request_name}/{arguments!r}/{form.axes!r}/{form.dtype}/{form.factored}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def outgoing(name: str, dims: tuple[str, ...], value: Value, form: Form) -> list[Outgoing]:
    """What a request asks to be sent of a value: the part, in its type and form.

    Raises:
        InvalidRequestError: slices or a dtype that do not fit.
    """
    index = slices.cut(value.shape, dims, form.axes)
    part = value if index is None else value.select(index)
    dtype = dtypes.wire_dtype(form.dtype, part.dtype)
    factors = part.factors() if form.factored else ()
    if factors:
        return [Outgoing(f"{name}.{f.name}", f.dims, f.value, f.value.dtype) for f in factors]
    return [Outgoing(name, dims, part, dtype)]


def outgoing_parts(method: Method, found: Found, form: Form) -> list[Outgoing]:
    """The same of a value that is several tensors: each is cut along those of the axes that it has.

    Raises:
        InvalidRequestError: slices or a dtype that do not fit.
        InternalError: the model gave something else than the method's parts.
    """
    names = ", ".join(part.name for part in method.parts)
    if not isinstance(found, tuple) or len(found) != len(method.parts):
        got = f"{len(found)} tensors" if isinstance(found, tuple) else "one tensor"
        raise InternalError(f"the model gave {got} for {method.name}, which consists of {len(method.parts)}: {names}")
    for axis, _ in form.axes:
        if axis not in method.value_dims:
            raise invalid_slice(
                axis, f"there is no axis {quoted(axis)}; {names} of {method.name} have {', '.join(method.value_dims)}"
            )
    made: list[Outgoing] = []
    for part, value in zip(method.parts, found, strict=True):
        if value is not None:
            dims = part.dims if value.shape else ()  # an optional one may be a scalar
            axes = tuple(each for each in form.axes if each[0] in dims)
            of_part = Form(axes, form.dtype if part.dtype is None else None)
            made += outgoing(f"{method.name}.{part.name}", dims, value, of_part)
    return made


def stream(
    parts: Iterable[Outgoing],
    tag: str,
    offset: int,
    chunk_bytes: int,
    take: Taker,
    ring: OfferedRing | None = None,
    sent: Callable[[int], object] = int,
) -> Iterator[bytes]:
    """The messages of some tensors from byte `offset` of the whole stream on; large ones by the ring, if there is one.
    `sent` is told of the bytes of each.

    Raises:
        InvalidRequestError: the offset is past the end.
    """
    start, last = 0, None
    for last in parts:
        end = start + last.nbytes
        if end > offset or (start == end == offset):
            skipped = max(0, offset - start)
            by_ring = ring is not None and last.nbytes - skipped >= shared_ring.WORTH_BYTES and ring.claim()
            for nbytes, message in _messages(last, tag, skipped, chunk_bytes, take, ring if by_ring else None):
                sent(nbytes)
                yield message
        start = end
    if offset > start:
        raise invalid_resume(f"resume_offset {offset} is past the end: {start} bytes", offset, start)
    if last is not None and offset == start and last.nbytes:  # all of it had arrived
        yield frames.frame(last.header(tag), last.nbytes, b"")


def resume_offset(delivery: Delivery, tag: str) -> int:
    """Where to begin: at the offset asked for if the bits are the same, otherwise at 0.

    Raises:
        InvalidRequestError: an offset without an etag.
    """
    offset = delivery.resume_offset
    if offset and not delivery.etag:
        raise invalid_resume(f"resume_offset {offset} needs the etag of the interrupted stream", offset, 0)
    return offset if delivery.etag == tag else 0


def invalid_resume(message: str, offset: int, total_bytes: int) -> InvalidRequestError:
    """A resume that no client means."""
    metadata = {"got": str(offset), "total_bytes": str(total_bytes)}
    return InvalidRequestError(message, reason="INVALID_RESUME", metadata=metadata)


def _messages(
    part: Outgoing, tag: str, skipped: int, chunk_bytes: int, take: Taker, ring: OfferedRing | None
) -> Iterator[tuple[int, bytes]]:
    """One tensor from its byte `skipped` on; the first message has its header. With each, how many bytes of it."""
    header: bytes | None = part.header(tag)
    if not part.nbytes:
        yield 0, frames.frame(header, 0, b"")
        return
    pieces, start = _pieces_from(part, skipped)
    frame, chunk_bytes = (ring.frame, min(chunk_bytes, ring.slot_bytes)) if ring else (frames.frame, chunk_bytes)
    for tensor in on_host(cast for piece in pieces for cast in _cast(take(part.value, piece).detach(), part.dtype)):
        data = frames.bytes_of(tensor)
        for position in range(max(0, skipped - start), len(data), chunk_bytes):
            part_of_it = data[position : position + chunk_bytes]
            yield len(part_of_it), frame(header, start + position, part_of_it)
            header = None
        start += len(data)


def _pieces_from(part: Outgoing, skipped: int) -> tuple[Iterator[Piece], int]:
    """The pieces that are still wanted, and where the first of them starts; the others are not computed."""
    pieces, start = part.value.pieces(PIECE_BYTES), 0
    for piece in pieces:
        end = start + math.prod(piece.shape) * part.dtype.itemsize
        if end > skipped:
            return chain((piece,), pieces), start
        start = end
    raise AssertionError(f"{part.name}: its pieces end at byte {start} of {part.nbytes}")


def _cast(tensor: torch.Tensor, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """In another type a piece at a time, as what lies in memory comes whole."""
    if tensor.dtype == dtype or tensor.nbytes <= PIECE_BYTES or not tensor.is_contiguous():
        yield tensor.to(dtype)
        return
    flat, step = tensor.flatten(), PIECE_BYTES // tensor.dtype.itemsize
    for start in range(0, flat.numel(), step):
        yield flat[start : start + step].to(dtype)
