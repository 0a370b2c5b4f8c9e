"""The outermost interceptor: sees every call from its begin to its end, and tells those who count, log and trace."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import grpc
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from transparent_llm.wire.methods import ADMIN_SERVICE, RUN_KEY_HEADER, SERVICE
from transparent_llm.wire.rpcs import ADMIN_RPCS, RPCS
from transparent_llm_server.access.identity import Identity
from transparent_llm_server.events import OTHER, Call, CallListener, current, trace_id_of
from transparent_llm_server.rpc.deadline import Deadline
from transparent_llm_server.rpc.interceptors.base import (
    Continuation,
    Handler,
    Request,
    Response,
    Work,
    WrappedHandlers,
    rewrapped,
    size_of,
)
from transparent_llm_server.rpc.peer import peer_of

_OURS = [(SERVICE, rpc.name) for rpc in RPCS] + [(ADMIN_SERVICE, rpc.name) for rpc in ADMIN_RPCS]
_KNOWN = _OURS + [
    (service.full_name, method.name)
    for schema in (health_pb2, reflection_pb2)
    for service in schema.DESCRIPTOR.services_by_name.values()
    for method in service.methods
]
KNOWN = {f"/{service}/{method}": (service, method) for service, method in _KNOWN}
"""Service and method by path; all others are OTHER, as anybody can make up names."""

_KEPT_HEADERS = frozenset({"traceparent", "tracestate", RUN_KEY_HEADER})


class CallEvents(grpc.ServerInterceptor):
    """Stands before all others, so that it sees the status that `Errors` made of an error."""

    def __init__(self, listeners: Sequence[CallListener], identity: Identity) -> None:
        self._listeners = listeners
        self._identity = identity
        self._handlers = WrappedHandlers(self._told)

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Wrap the handler; what nobody handles is told at once."""
        handler = self._handlers.of(continuation, details)
        if handler is None:
            self._tell_unknown(details)
        return handler

    def _told(self, handler: Handler[Request, Response], path: str) -> Handler[Request, Response]:
        def once(work: Work, request: object, context: grpc.ServicerContext) -> object:
            with self._observed(path, context) as call:
                response = work(request, context)
                call.sent_bytes = size_of(response)
                return response

        def stream(work: Work, request: object, context: grpc.ServicerContext) -> Iterator[object]:
            with self._observed(path, context) as call:
                for message in work(request, context):
                    yield message
                    call.sent_bytes += size_of(message)

        return rewrapped(handler, once, stream)

    @contextmanager
    def _observed(self, path: str, context: grpc.ServicerContext) -> Iterator[Call]:
        call, deadline, started = _call(path, context.invocation_metadata()), Deadline(context), time.perf_counter()
        peer = peer_of(context)
        call.address, call.peer = peer.address, peer.kind
        self._begin(call)
        current.set(call)
        try:
            yield call
        finally:
            if current.get() is call:  # a stream that was dropped may end on a thread that works for another call
                current.set(None)
            call.seconds = time.perf_counter() - started
            call.code = _outcome(context, deadline)
            call.owner = self._identity.known(context) or ""
            self._end(call)

    def _tell_unknown(self, details: grpc.HandlerCallDetails) -> None:
        call = _call(str(details.method), details.invocation_metadata)
        call.code = grpc.StatusCode.UNIMPLEMENTED.name
        self._begin(call)
        self._end(call)

    def _begin(self, call: Call) -> None:
        for listener in self._listeners:
            listener.began(call)

    def _end(self, call: Call) -> None:
        for listener in self._listeners:
            listener.ended(call)


def _call(path: str, metadata: Iterable[tuple[str, str | bytes]]) -> Call:
    service, method = KNOWN.get(path, (OTHER, OTHER))
    headers = {str(key): str(value) for key, value in metadata if key in _KEPT_HEADERS}
    return Call(service, method, headers, trace_id=trace_id_of(headers.get("traceparent", "")))


def _outcome(context: grpc.ServicerContext, deadline: Deadline) -> str:
    code = context.code()  # type: ignore[attr-defined]  # there since grpcio 1.45, not in the stubs
    if code is not None:
        return str(getattr(code, "name", code))
    if context.is_active():
        return grpc.StatusCode.OK.name
    return grpc.StatusCode.DEADLINE_EXCEEDED.name if deadline.is_over() else grpc.StatusCode.CANCELLED.name
