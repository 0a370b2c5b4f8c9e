"""Requests are parsed within the call: to what gRPC cannot parse it answers INTERNAL, as if it were our fault."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm_server.interceptors.around import KINDS

_SMALL_BYTES = 64 * 2**10
"""What the request of a call that names one value can never need."""

_MOST_BYTES = {"TokensToStrings": 2**20, "Unembed": 2**20, "Fetch": 2**20, "Plan": 2**20, "Run": 2**31}
"""Those that carry tokens, a tensor, a list, or text, for which only the server's own limit holds."""

_one_at_a_time = threading.Lock()  # nobody else gets to run while one is parsed: of a large one, for tens of ms


class Decoding(grpc.ServerInterceptor):
    """Stands nearest to the handlers, of all services: bytes that are no request are refused as such."""

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Take the parsing over from gRPC."""
        handler = continuation(details)
        if handler is None or handler.request_deserializer is None:
            return handler
        parsed = functools.partial(_parsed, handler.request_deserializer, str(details.method))
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


def _parsed(parse: Callable[[bytes], Any], method: str, data: bytes) -> Any:
    allowed = _MOST_BYTES.get(method.rpartition("/")[2], _SMALL_BYTES)
    if len(data) > allowed:
        raise TooLargeError(
            f"a request of {len(data)} bytes; {method} takes at most {allowed}",
            metadata={"needed": str(len(data)), "allowed": str(allowed)},
        )
    try:
        with _one_at_a_time if len(data) > _SMALL_BYTES else nullcontext():
            return parse(data)
    except DecodeError as error:
        raise InvalidRequestError(f"these {len(data)} bytes are no request of {method}: {error}") from None
