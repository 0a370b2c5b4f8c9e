"""Requests are parsed within the call: to what gRPC cannot parse it answers INTERNAL, as if it were our fault."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.interceptors.around import KINDS


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
    try:
        return parse(data)
    except DecodeError as error:
        raise InvalidRequestError(f"these {len(data)} bytes are no request of {method}: {error}") from None
