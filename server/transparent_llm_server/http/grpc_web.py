"""gRPC-Web as it is on the wire: one message comes, messages and then trailers go, each in a frame of its own."""

from __future__ import annotations

import base64
import re
from typing import NamedTuple

import grpc

from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm.wire import status

MEDIA_TYPE = "application/grpc-web+proto"
MEDIA_TYPES = frozenset({MEDIA_TYPE, "application/grpc-web"})
_COMPRESSED, _TRAILERS = 0x01, 0x80
_PREFIX_BYTES = 5
"""Before each frame: a byte of flags, and its length in four."""

_TIMEOUT = re.compile(r"([0-9]{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_LONGEST_S = 1e8
"""More is the same as no limit."""


class Status(NamedTuple):
    """How a call ended."""

    code: int
    message: str
    details: bytes = b""
    """A serialized google.rpc.Status, if there is one."""


OK = Status(grpc.StatusCode.OK.value[0], "")


class RefusedError(Exception):
    """A call that is not made, or not gone on with."""

    def __init__(self, why: Status) -> None:
        super().__init__(why.message)
        self.status = why


class Arriving:
    """The body of a call as it comes: exactly one message, of at most so many bytes."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._body = bytearray()

    def add(self, data: bytes) -> None:
        """One more piece.

        Raises:
            RefusedError: the message is compressed or too large, as its first bytes say, or something comes behind it.
        """
        self._body += data
        length = self._declared
        if length is not None and len(self._body) > _PREFIX_BYTES + length:
            raise refused(InvalidRequestError(f"something follows a message of {length} bytes: a call takes one"))

    def message(self) -> bytes:
        """The message, when all has come.

        Raises:
            RefusedError: it is not whole.
        """
        length, come = self._declared, len(self._body)
        if length is None or come < _PREFIX_BYTES + length:
            wanted = "5 bytes of a frame" if length is None else f"the {_PREFIX_BYTES + length} bytes of its frame"
            raise refused(InvalidRequestError(f"the request ended after {come} bytes, before {wanted} had come"))
        return bytes(memoryview(self._body)[_PREFIX_BYTES:])

    @property
    def _declared(self) -> int | None:
        """The length of the message, once it is known."""
        if len(self._body) < _PREFIX_BYTES:
            return None
        flags, length = self._body[0], int.from_bytes(self._body[1:_PREFIX_BYTES], "big")
        if flags & _COMPRESSED:
            raise refused(InvalidRequestError("the message is compressed, which is not taken here: send it as it is"))
        if flags:
            raise refused(InvalidRequestError(f"a frame with the flags {flags:#04x}; that of a message has none"))
        if length > self._most_bytes:  # as gRPC itself says it
            said = f"Received message larger than max ({length} vs. {self._most_bytes})"
            raise RefusedError(Status(grpc.StatusCode.RESOURCE_EXHAUSTED.value[0], said))
        return length


def refused(error: TransparentLlmError) -> RefusedError:
    """With an error's own status and details."""
    rich = status.to_status(error)
    return RefusedError(Status(rich.code, rich.message, rich.SerializeToString()))


def unimplemented(what: str) -> RefusedError:
    """As gRPC answers what nobody handles."""
    return RefusedError(Status(grpc.StatusCode.UNIMPLEMENTED.value[0], what))


def timeout_of(text: str) -> float:
    """Seconds of a `grpc-timeout`.

    Raises:
        RefusedError: it is none.
    """
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise refused(InvalidRequestError(f"grpc-timeout is {text[:20]!r}: write up to 8 digits and one of HMSmun"))
    return min(int(match[1]) * _SECONDS[match[2]], _LONGEST_S)


def message_frame(message: bytes) -> bytes:
    """Of one message."""
    return b"".join((b"\0", len(message).to_bytes(4, "big"), message))


def trailers_frame(of: Status) -> bytes:
    """The last frame of an answer."""
    lines = f"grpc-status: {of.code}\r\n"
    if of.message:
        lines += f"grpc-message: {_percent_encoded(of.message)}\r\n"
    if of.details:
        lines += f"{status.DETAILS_KEY}: {base64.b64encode(of.details).decode()}\r\n"
    encoded = lines.encode("ascii")
    return b"".join((bytes([_TRAILERS]), len(encoded).to_bytes(4, "big"), encoded))


def _percent_encoded(message: str) -> str:
    """Printable ASCII as it is, but for the percent sign."""
    raw = message.encode("utf-8", "replace")
    return "".join(chr(byte) if 0x20 <= byte <= 0x7E and byte != 0x25 else f"%{byte:02X}" for byte in raw)
