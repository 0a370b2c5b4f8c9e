"""A client that stops reading a stream holds a thread of the server; after a time it is cut off."""

from __future__ import annotations

import functools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc

log = logging.getLogger(__name__)


class _Stream:
    """One stream, and since when its last message waits to be taken."""

    def __init__(self, method: str, context: grpc.ServicerContext) -> None:
        self.method, self.context = method, context
        self.offered_at: float | None = None
        self.was_cut = False


class Stalls(grpc.ServerInterceptor):
    """Knows which streams wait for their clients; `cut` ends those that have done so for `stall_s`. 0: never.

    gRPC takes a stream's next message only when the connection has room for it. Time that a stream spends
    computing is not counted.
    """

    def __init__(self, stall_s: float) -> None:
        self._stall_s = stall_s
        self._streams: set[_Stream] = set()
        self._lock = threading.Lock()

    def cut(self) -> int:
        """End the streams that nobody reads; how many there were, each told once."""
        if not self._stall_s:
            return 0
        oldest = time.monotonic() - self._stall_s
        with self._lock:
            streams = list(self._streams)
        waiting = [stream for stream in streams if not stream.was_cut]
        stalled = [stream for stream in waiting if (at := stream.offered_at) is not None and at < oldest]
        for stream in stalled:
            log.warning("%s: nobody read for %g s, cut off", stream.method, self._stall_s)
            stream.context.cancel()
            stream.was_cut = True
        return len(stalled)

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Watch the handler's messages, if it streams."""
        handler = continuation(details)
        if handler is None or handler.unary_stream is None:
            return handler
        method = str(details.method).rpartition("/")[2]

        @functools.wraps(handler.unary_stream)  # with what grpc reads from it: threads of its own
        def stream(request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
            watched = _Stream(method, context)
            with self._lock:
                self._streams.add(watched)
            try:
                for message in handler.unary_stream(request, context):
                    watched.offered_at = time.monotonic()
                    yield message
                    watched.offered_at = None
            finally:
                with self._lock:
                    self._streams.discard(watched)

        return grpc.unary_stream_rpc_method_handler(stream, handler.request_deserializer, handler.response_serializer)
