"""The one way to put something around the work of a call, whether it answers once or streams."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import cached_property, partial, update_wrapper
from typing import Any, Protocol, TypeAlias, TypeVar

import grpc

Request = TypeVar("Request")
Response = TypeVar("Response")
Handler: TypeAlias = "grpc.RpcMethodHandler[Request, Response]"
Continuation: TypeAlias = Callable[[grpc.HandlerCallDetails], "grpc.RpcMethodHandler[Request, Response] | None"]
"""The rest of the chain: finds the handler of a call; None where nobody handles it."""

Work = Callable[[Any, grpc.ServicerContext], Any]
"""What a handler does: from a request, or the iterator of requests where they stream, to an answer, or the iterator of
answers. Which of these it is only the handler knows."""

Around = Callable[[Work, Any, grpc.ServicerContext], Any]
"""What is done instead of some work, which it is given."""

_Streaming = TypeVar("_Streaming", bound=Callable[..., object])
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


class _Message(Protocol):
    def ByteSize(self) -> int: ...


def rewrapped(
    handler: Handler[Request, Response], once: Around, stream: Around, *, unparsed: bool = False
) -> Handler[Request, Response]:
    """A handler that does `once` instead of work that answers once, and `stream` instead of work that streams.

    With `unparsed` it is given its requests as gRPC has them: as bytes, and as an iterator even where there is one.
    """
    kind = next(kind for kind in _KINDS if getattr(handler, kind) is not None)
    requests, responses = kind.split("_")
    work: Work = getattr(handler, kind)
    made = partial(stream if handler.response_streaming else once, work)
    update_wrapper(made, work)  # with what grpc reads from it: threads of its own
    make = getattr(grpc, f"{'stream' if unparsed else requests}_{responses}_rpc_method_handler")
    wrapped: Handler[Request, Response] = make(
        made, None if unparsed else handler.request_deserializer, handler.response_serializer
    )
    return wrapped


def size_of(message: bytes | _Message) -> int:
    """Bytes of an answer. Streams of tensors are serialized when they come to interceptors."""
    return len(message) if isinstance(message, bytes) else message.ByteSize()


def for_one_call(work: _Streaming) -> _Streaming:
    """Mark work that is made for one call, in streams both ways, so that nobody keeps a handler of it."""
    work.is_for_one_call = True  # type: ignore[attr-defined]
    return work


def is_for_one_call(handler: Handler[Request, Response]) -> bool:
    """Whether a handler was made for one call. What is wrapped around such a one is too."""
    return getattr(handler.stream_stream, "is_for_one_call", False)


class WrappedHandlers:
    """The handlers of an interceptor, each wrapped once: at the first call of its method."""

    def __init__(self, wrap: Callable[[Handler[Any, Any], str], Handler[Any, Any]]) -> None:
        self._wrap = wrap
        self._known: dict[str, tuple[Handler[Any, Any], Handler[Any, Any]]] = {}  # with what each was made of

    def of(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Instead of the handler that the rest of the chain found; None where nobody handles the call."""
        handler, method = continuation(details), str(details.method)
        if handler is None:
            return None
        if is_for_one_call(handler):  # of any name that somebody made up
            return self._wrap(handler, method)
        known = self._known.get(method)
        if known is None or known[0] is not handler:
            known = self._known[method] = (handler, self._wrap(handler, method))
        return known[1]


class _Wrapping(grpc.ServerInterceptor, ABC):
    """An interceptor that does something beside the work of a call."""

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Wrap the handler that the rest of the chain found."""
        return self._handlers.of(continuation, details)

    @cached_property
    def _handlers(self) -> WrappedHandlers:
        return WrappedHandlers(self._wrapped)

    @abstractmethod
    def _wrapped(self, handler: Handler[Request, Response], method: str) -> Handler[Request, Response]: ...


class CheckInterceptor(_Wrapping):
    """An interceptor that has a say before the work of a call, and is out of the way of its messages."""

    @abstractmethod
    def check(self, method: str, context: grpc.ServicerContext) -> None:
        """Let the call through, or raise what it is answered with."""

    def _wrapped(self, handler: Handler[Request, Response], method: str) -> Handler[Request, Response]:
        def checked(work: Work, request: object, context: grpc.ServicerContext) -> object:
            self.check(method, context)
            return work(request, context)

        return rewrapped(handler, checked, checked)


class ContextInterceptor(_Wrapping):
    """An interceptor that is a context manager around the work of a call."""

    @abstractmethod
    def around(self, method: str, context: grpc.ServicerContext) -> AbstractContextManager[None]:
        """Entered before the call's work begins, left when its last message has gone."""

    def _wrapped(self, handler: Handler[Request, Response], method: str) -> Handler[Request, Response]:
        def once(work: Work, request: object, context: grpc.ServicerContext) -> object:
            with self.around(method, context):
                return work(request, context)

        def stream(work: Work, request: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self.around(method, context):
                yield from work(request, context)

        return rewrapped(handler, once, stream)
