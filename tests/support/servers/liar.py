"""A real server whose answers are changed on their way: what a lying one would send to a client."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
from google.protobuf.message import Message

from support.servers.servers import Continuation
from transparent_llm.wire.rpcs import RPCS

Change = Callable[[Any], Any]
"""Of an answer: a message for a unary call, the bytes of each message for a stream. What it raises ends the call."""

_RESPONSES = {rpc.name: rpc.response for rpc in RPCS}


def message_of(rpc: str, answer: Message | bytes) -> Any:
    """What an RPC answers with, read from its bytes where the server has written them itself."""
    return _RESPONSES[rpc].FromString(answer) if isinstance(answer, bytes) else answer


class Liar(grpc.ServerInterceptor):
    """Changes the answers of the RPCs that are named."""

    def __init__(self, changes: Mapping[str, Change]) -> None:
        self._changes = changes

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        handler: Any = continuation(details)
        name = str(details.method).rpartition("/")[2]
        change = self._changes.get(name)
        if handler is None or change is None:
            return handler

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            return change(message_of(name, handler.unary_unary(request, context)))

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            for message in handler.unary_stream(request, context):
                yield change(message)

        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(unary, handler.request_deserializer, handler.response_serializer)
        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
