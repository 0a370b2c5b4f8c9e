"""From a value on its device to messages: select, cast, copy, chunk. Nothing is copied before it is cut."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes, slices, tensors
from transparent_llm.wire._gen import tensor_pb2


@dataclass(frozen=True)
class ChunkSizes:
    """Data bytes in one message."""

    default: int
    most: int

    def choose(self, requested: int) -> int:
        """What a request gets; 0 asks for the default."""
        return min(requested or self.default, self.most)


def etag(identity: str, request_name: str, arguments: object, options: tensor_pb2.TensorOptions) -> str:
    """Names the bits of a stream: the same only for the same value, cut and cast in the same way.

    `identity` names where the bits come from: one forward pass, or the weights.
    """
    cut = tensor_pb2.TensorOptions(slices=options.slices, dtype=options.dtype)
    text = f"{identity}/{request_name}/{arguments!r}/".encode() + cut.SerializeToString(deterministic=True)
    return hashlib.sha256(text).hexdigest()[:32]


def ready(value: torch.Tensor, dims: tuple[str, ...], options: tensor_pb2.TensorOptions) -> torch.Tensor:
    """The part of a value that was asked for, in the type that was asked for, contiguous on the CPU.

    Raises:
        InvalidRequestError: slices or a dtype that do not fit.
    """
    part = slices.select(value, dims, options.slices)
    return part.detach().to(dtypes.wire_dtype(options.dtype, part.dtype)).contiguous().cpu()


def stream(
    part: torch.Tensor,
    name: str,
    dims: tuple[str, ...],
    options: tensor_pb2.TensorOptions,
    tag: str,
    sizes: ChunkSizes,
    is_active: Callable[[], bool],
) -> Iterator[tensor_pb2.TensorChunk]:
    """The messages of what `ready` gave; stops between two of them once the call is no longer active.

    Raises:
        InvalidRequestError: a resume offset that does not fit.
    """
    offset = _resume_offset(options, tag, part.nbytes)
    head = tensors.header(part, name, dims, tag)
    for chunk in tensors.chunks(part, head, chunk_bytes=sizes.choose(options.max_chunk_bytes), offset=offset):
        if not is_active():
            return
        yield chunk


def _resume_offset(options: tensor_pb2.TensorOptions, tag: str, total_bytes: int) -> int:
    """Where to begin: at the offset asked for if the bits are the same, otherwise at 0."""
    offset: int = options.resume_offset
    if offset and not options.etag:
        raise _invalid_resume(f"resume_offset {offset} needs the etag of the interrupted stream", offset, total_bytes)
    if options.etag != tag:
        return 0
    if offset > total_bytes:
        raise _invalid_resume(f"resume_offset {offset} is past the end: {total_bytes} bytes", offset, total_bytes)
    return offset


def _invalid_resume(message: str, offset: int, total_bytes: int) -> InvalidRequestError:
    metadata = {"got": str(offset), "total_bytes": str(total_bytes)}
    return InvalidRequestError(message, reason="INVALID_RESUME", metadata=metadata)
