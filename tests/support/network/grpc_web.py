"""Calls as a browser makes them: gRPC-Web over HTTP/1.1."""

from __future__ import annotations

import http.client
import struct
from dataclasses import dataclass, field

from transparent_llm.wire.methods import SERVICE

TRAILERS = 0x80


@dataclass(frozen=True)
class WebAnswer:
    """What came back."""

    messages: list[bytes]
    trailers: dict[str, str]
    headers: dict[str, str] = field(repr=False)


def web_call(address: str, rpc: str, request: bytes, **headers: str) -> WebAnswer:
    """One call; its messages and, as gRPC-Web has them in the body, its trailers."""
    connection = http.client.HTTPConnection(address, timeout=30)
    framed = b"\x00" + struct.pack(">I", len(request)) + request
    sent = {"content-type": "application/grpc-web+proto", "x-grpc-web": "1", **headers}
    connection.request("POST", f"/{SERVICE}/{rpc}", framed, sent)
    response = connection.getresponse()
    body, found = response.read(), {name.lower(): value for name, value in response.getheaders()}
    connection.close()
    assert response.status == 200, (response.status, body[:300])
    messages, trailers = [], {name: value for name, value in found.items() if name.startswith("grpc-")}
    while body:
        kind, (length,) = body[0], struct.unpack(">I", body[1:5])
        part, body = body[5 : 5 + length], body[5 + length :]
        if kind & TRAILERS:
            lines = (line.split(":", 1) for line in part.decode().splitlines() if line)
            trailers.update({name.strip().lower(): value.strip() for name, value in lines})
        else:
            messages.append(part)
    return WebAnswer(messages, trailers, found)
