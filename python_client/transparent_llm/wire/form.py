"""What a request asks for beyond its arguments, read once: the form of a value, and the delivery of a stream."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes, slices
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.ring import Offer


@dataclass(frozen=True)
class Form:
    """Which part of a value is sent, and how it is encoded: with the value itself, all that its bits depend on.

    A client asks with it, and a server reads it out of a request, which may come from anyone.
    """

    axes: tuple[tuple[str, slice], ...] = ()
    """Parts of axes by name, not yet compared with any tensor: an axis that is there twice is refused only then."""

    dtype: torch.dtype | None = None
    """Element type on the wire. None: as held."""

    factored: bool = False
    """Whether its factors may come instead, where it has some."""


@dataclass(frozen=True)
class Delivery:
    """How the bytes of a stream are sent; whatever it says, they are the same."""

    resume_offset: int = 0
    """Data bytes that have arrived already."""

    etag: str = ""
    """Of the stream that broke off."""

    max_chunk_bytes: int = 0
    """In one message. 0: the server's choice."""

    offer: Offer | None = None
    """Shared memory in which the client can take large tensors."""


_AS_HELD, _AS_USUAL = Form(), Delivery()
"""What most small reads ask for."""


def form_of(options: tensor_pb2.TensorOptions) -> Form:
    """The form in which a request wants its value.

    Raises:
        InvalidRequestError: a dtype or an encoding that is unknown.
    """
    if not options.ByteSize():
        return _AS_HELD
    dtype = None if options.dtype == tensor_pb2.DTYPE_UNSPECIFIED else dtypes.from_wire(options.dtype)
    return Form(slices.from_wire(options.slices), dtype, _is_factored(options.encoding))


def delivery_of(options: tensor_pb2.TensorOptions) -> Delivery:
    """How a request wants its stream."""
    if not options.ByteSize():
        return _AS_USUAL
    offer = None
    if options.HasField("shared_memory"):
        offered = options.shared_memory
        offer = Offer(offered.name, offered.nonce, offered.slots, offered.slot_bytes)
    return Delivery(options.resume_offset, options.etag, options.max_chunk_bytes, offer)


def _is_factored(encoding: tensor_pb2.Encoding) -> bool:
    if encoding in (tensor_pb2.ENCODING_UNSPECIFIED, tensor_pb2.ENCODING_DENSE):
        return False
    if encoding == tensor_pb2.ENCODING_FACTORED:
        return True
    raise InvalidRequestError(
        f"unknown encoding {encoding}; allowed are DENSE and FACTORED", metadata={"got": str(encoding)}
    )
