"""How many calls may be in flight at once, in all and for each owner. The rest are told at once to come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import grpc

from transparent_llm_server.events import current
from transparent_llm_server.rpc.concurrency.in_flight import CallInFlight
from transparent_llm_server.rpc.concurrency.lanes import Lane
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


class Concurrency(grpc.ServerInterceptor):
    """Counts each call in its lane, from before its request has come until gRPC is done with it."""

    def __init__(self, lane_of: Callable[[str], Lane]) -> None:
        self._lane_of = lane_of
        self._handlers = WrappedHandlers(self._counting)

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Wrap the handler, and give it the threads of its lane."""
        return self._handlers.of(continuation, details)

    def _counting(self, handler: Handler[Request, Response], method: str) -> Handler[Request, Response]:
        lane = self._lane_of(method)
        counting = rewrapped(handler, partial(_once, lane, method), partial(_stream, lane, method))
        if lane.threads is not None:
            for work in (counting.stream_unary, counting.stream_stream):
                if work is not None:
                    work.experimental_thread_pool = lane.threads  # type: ignore[union-attr]  # grpc looks there
        return counting


def _once(lane: Lane, method: str, work: Work, messages: Iterator[bytes], context: grpc.ServicerContext) -> object:
    call, in_flight, nbytes = _entered(lane, method, context), lane.in_flight, 0
    try:
        answer = work(in_flight.requests(call, messages), context)
        nbytes = size_of(answer)
        return answer
    finally:
        in_flight.answered(call, nbytes)


def _stream(
    lane: Lane, method: str, work: Work, messages: Iterator[bytes], context: grpc.ServicerContext
) -> Iterator[object]:
    call, in_flight = _entered(lane, method, context), lane.in_flight
    try:
        yield from in_flight.offers(call, work(in_flight.requests(call, messages), context))
    finally:
        in_flight.answered(call)


def _entered(lane: Lane, method: str, context: grpc.ServicerContext) -> CallInFlight:
    observed = current.get()
    connection = observed.address if observed is not None else peer_of(context).address
    call = lane.in_flight.enter(method, lane.owner_of(context), connection, context.cancel)
    ended = partial(lane.in_flight.ended, call)
    if not context.add_callback(ended):
        ended()
    return call
