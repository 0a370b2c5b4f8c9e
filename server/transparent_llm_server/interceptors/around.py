"""The one way to put something around a call, whether it answers once or streams."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc

_Details = grpc.HandlerCallDetails
_Handler = Any  # grpc's own class, whose type arguments nobody knows here
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
"""Of handlers."""


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
        kind = next(kind for kind in KINDS if getattr(handler, kind) is not None)
        work = getattr(handler, kind)

        @functools.wraps(work)  # with what grpc reads from it: threads of its own
        def once(request: Any, context: grpc.ServicerContext) -> Any:
            with self.around(method, context):
                return work(request, context)

        @functools.wraps(work)
        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            with self.around(method, context):
                yield from work(request, context)

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        wrapped = stream if kind.endswith("_stream") else once
        return make(wrapped, handler.request_deserializer, handler.response_serializer)
