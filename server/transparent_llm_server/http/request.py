"""A request of a browser, as far as it is known before its body comes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
"""The three of ASGI."""

CERTIFICATE = "certificate"
"""Where a connection keeps its client's certificate for its requests."""


@dataclass(frozen=True)
class Request:
    """Its line and its headers."""

    method: str
    path: str
    """As it was sent, without the query; nothing in it is decoded."""

    headers: Mapping[str, str]
    """By their names in small letters; one that came several times has all its values, with commas between them."""

    host: str
    port: int
    """Where it comes from."""

    head_bytes: int
    """Of path and headers together."""

    certificate: bytes | None = None
    """That TLS has verified of the client (PEM); None if it was asked for none."""

    @classmethod
    def of(cls, scope: Scope) -> Request:
        """As a connection has it."""
        headers: dict[str, str] = {}
        for key, value in scope["headers"]:
            name, text = key.decode("latin-1"), value.decode("latin-1")
            headers[name] = f"{headers[name]}, {text}" if name in headers else text
        host, port = scope["client"] or ("", 0)
        path = scope["raw_path"].decode("latin-1")
        size = len(path) + len(scope["query_string"]) + sum(len(key) + len(value) for key, value in scope["headers"])
        return cls(scope["method"], path, headers, host, port, size, scope["state"].get(CERTIFICATE))
