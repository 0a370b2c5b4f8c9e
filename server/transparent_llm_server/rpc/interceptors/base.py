"""The one way to put something around the work of a call, whether it answers once or streams."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import grpc

_Details = grpc.HandlerCallDetails
Handler = Any
"""grpc's own class, whose type arguments nobody knows here."""

Work = Callable[[Any, grpc.ServicerContext], Any]
"""What a handler does: with a request, or with the iterator of requests where they stream."""

_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


def work_of(handler: Handler) -> tuple[str, Work]:
    """The kind of a handler, as unary_stream, and its work."""
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    return kind, getattr(handler, kind)


def rewritten(handler: Handler, make: Callable[[Work, bool], Work]) -> Handler:
    """A handler of the same kind whose work `make` made of the old work; it is told whether the answer streams."""
    kind, work = work_of(handler)
    made = functools.wraps(work)(
        make(work, kind.endswith("_stream"))
    )  # with what grpc reads from it: threads of its own
    of_kind = getattr(grpc, f"{kind}_rpc_method_handler")
    return of_kind(made, handler.request_deserializer, handler.response_serializer)


def size_of(message: Any) -> int:
    """Bytes of an answer. Streams of tensors are serialized when they come to interceptors."""
    return len(message) if isinstance(message, bytes) else int(message.ByteSize())


class ContextInterceptor(grpc.ServerInterceptor, ABC):
    """An interceptor that is a context manager around the work of a call."""

    @abstractmethod
    def around(self, method: str, context: grpc.ServicerContext) -> AbstractContextManager[Any]:
        """Entered before the call's work begins, left when its last message has gone."""

    def intercept_service(self, continuation: Callable[[_Details], Handler | None], details: _Details) -> Any:
        """Wrap the handler that the rest of the chain found."""
        handler, method = continuation(details), str(details.method)

        def wrapped(work: Work, streams: bool) -> Work:
            def once(request: Any, context: grpc.ServicerContext) -> Any:
                with self.around(method, context):
                    return work(request, context)

            def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
                with self.around(method, context):
                    yield from work(request, context)

            return stream if streams else once

        return None if handler is None else rewritten(handler, wrapped)
