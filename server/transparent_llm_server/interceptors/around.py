"""The one way to put something around a call, whether it answers once or streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc

_Details = grpc.HandlerCallDetails
_Handler = Any  # grpc's own class, whose type arguments nobody knows here


class Around(grpc.ServerInterceptor, ABC):
    """An interceptor that is a context manager around the work of a call."""

    @abstractmethod
    def around(self, method: str, context: grpc.ServicerContext) -> AbstractContextManager[Any]:
        """Entered before the call's work begins, left when its last message has gone."""

    def intercept_service(self, continuation: Callable[[_Details], _Handler | None], details: _Details) -> Any:
        """Wrap the handler that the rest of the chain found."""
        handler = continuation(details)
        if handler is None:
            return None
        method = str(details.method)

        def unary(request: Any, context: grpc.ServicerContext) -> Any:
            with self.around(method, context):
                return handler.unary_unary(request, context)

        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self.around(method, context):
                yield from handler.unary_stream(request, context)

        serialization = (handler.request_deserializer, handler.response_serializer)
        if handler.unary_unary is not None:
            return grpc.unary_unary_rpc_method_handler(unary, *serialization)
        if handler.unary_stream is not None:
            return grpc.unary_stream_rpc_method_handler(stream, *serialization)
        return handler  # reflection streams both ways and needs nothing of this
