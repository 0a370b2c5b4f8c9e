"""Calls as a browser makes them: gRPC-Web over HTTP/1.1."""

from __future__ import annotations

import http.client
import ssl
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from transparent_llm.wire.methods import SERVICE

TRAILERS = 0x80


@dataclass(frozen=True)
class WebAnswer:
    """What came back."""

    messages: list[bytes]
    trailers: dict[str, str]
    headers: dict[str, str] = field(repr=False)


@dataclass(frozen=True)
class HttpAnswer:
    """Of one request."""

    status: int
    headers: dict[str, str]
    body: bytes


def frame(message: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + struct.pack(">I", len(message)) + message


def asked(
    page: str,
    path: str,
    method: str = "GET",
    body: bytes | None = None,
    context: ssl.SSLContext | None = None,
    **headers: str,
) -> HttpAnswer:
    """One request to http(s)://HOST:PORT; `_` in the name of a header stands for `-`."""
    scheme, _, address = page.partition("://")
    if scheme == "https":
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(address, timeout=30, context=context)
    else:
        connection = http.client.HTTPConnection(address, timeout=30)
    try:
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return HttpAnswer(response.status, found, response.read())
    finally:
        connection.close()


def posted(page: str, path: str, body: bytes, context: ssl.SSLContext | None = None, **headers: str) -> WebAnswer:
    """A call with this body, whatever it is."""
    sent = {"content_type": "application/grpc-web+proto", "x_grpc_web": "1", **headers}
    answer = asked(page, path, "POST", body, context, **sent)
    assert answer.status == 200, (answer.status, answer.body[:300])
    return parsed(answer.body, answer.headers)


def web_call(
    address: str, rpc: str, request: bytes, context: ssl.SSLContext | None = None, **headers: str
) -> WebAnswer:
    """One call; its messages and, as gRPC-Web has them in the body, its trailers."""
    page = address if "://" in address else f"http://{address}"
    return posted(page, f"/{SERVICE}/{rpc}", frame(request), context, **headers)


def parsed(body: bytes, headers: Mapping[str, str]) -> WebAnswer:
    """What an answer of gRPC-Web says."""
    messages, trailers = [], {name: value for name, value in headers.items() if name.startswith("grpc-")}
    while body:
        kind, (length,) = body[0], struct.unpack(">I", body[1:5])
        part, body = body[5 : 5 + length], body[5 + length :]
        assert len(part) == length, "the answer ends within a frame"
        if kind & TRAILERS:
            lines = (line.split(":", 1) for line in part.decode().splitlines() if line)
            trailers.update({name.strip().lower(): value.strip() for name, value in lines})
        else:
            messages.append(part)
    return WebAnswer(messages, trailers, dict(headers))
