"""Requests are parsed within the call: to what gRPC cannot parse it answers INTERNAL, as if it were our fault."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.fetch import MOST_ITEMS
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.interceptors.around import KINDS

_SMALL_BYTES = 64 * 2**10
"""What the request of a call that names one value can never need."""

_MOST_BYTES = {"TokensToStrings": 2**20, "Unembed": 2**20, "Fetch": 2**20, "Plan": 2**20, "Run": 2**31}
"""Those that carry tokens, a tensor, a list, or text, for which only the server's own limit holds."""

_ITEMS, _ROWS = ((2,),), ((2, 3), (1,))
"""Where the entries of lists lie: items of a FetchRequest or PlanRequest; sentences or sequences of a RunRequest."""

_one_at_a_time = threading.Lock()  # nobody else gets to run while one is parsed: of a large one, for tens of ms


class Decoding(grpc.ServerInterceptor):
    """Stands nearest to the handlers, of all services: bytes that are no request are refused as such.

    Before they are parsed they are measured, and the entries of the list that they can have are counted.
    """

    def __init__(self, config: ServerConfig) -> None:
        items, rows = _List(_ITEMS, "items", MOST_ITEMS), _List(_ROWS, "sentences", config.max_sentences_per_run)
        self._lists = {"Fetch": items, "Plan": items, "Run": rows}

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Take the parsing over from gRPC."""
        handler = continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        method = str(details.method)
        parsed = functools.partial(
            _parsed, handler.request_deserializer, method, self._lists.get(method.rpartition("/")[2])
        )
        kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
        work = getattr(handler, kind)

        @functools.wraps(work)  # with what grpc reads from it: threads of its own
        def once(data: bytes, context: grpc.ServicerContext) -> Any:
            return work(parsed(data), context)

        @functools.wraps(work)
        def stream(messages: Any, context: grpc.ServicerContext) -> Any:
            return work(map(parsed, messages), context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(stream if kind.startswith("stream_") else once, None, handler.response_serializer)


@dataclass(frozen=True)
class _List:
    path: Sequence[Collection[int]]
    what: str
    most: int

    def require(self, data: bytes) -> None:
        if count_entries(data, self.path, self.most) > self.most:
            raise TooLargeError(
                f"more {self.what} at once than this server allows, {self.most}; send fewer",
                reason="TOO_LARGE" if self.path is _ITEMS else "TOO_LONG",
                metadata={"needed": f"more than {self.most}", "allowed": str(self.most)},
            )


def _parsed(parse: Callable[[bytes], Any], method: str, entries: _List | None, data: bytes) -> Any:
    if len(data) <= _SMALL_BYTES:
        return _message(parse, method, data)
    allowed = _MOST_BYTES.get(method.rpartition("/")[2], _SMALL_BYTES)
    if len(data) > allowed:
        raise TooLargeError(
            f"a request of {len(data)} bytes; {method} takes at most {allowed}",
            metadata={"needed": str(len(data)), "allowed": str(allowed)},
        )
    with _one_at_a_time:
        if entries is not None:
            entries.require(data)
        return _message(parse, method, data)


def _message(parse: Callable[[bytes], Any], method: str, data: bytes) -> Any:
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidRequestError(f"these {len(data)} bytes are no request of {method}: {error}") from None
