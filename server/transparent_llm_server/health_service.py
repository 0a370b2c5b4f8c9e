"""The standard health service, which anybody may call.

So each server that answers it has threads of its own for it, and a call gives way to the next: one whose request has
not come, or one that waits for changes. grpc's own way to wait without a thread is not used: it can lock up when a
watcher leaves during a change.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

from grpc_health.v1 import health, health_pb2

from transparent_llm_server.in_flight import Bounds, InFlight, Phase
from transparent_llm_server.interceptors.concurrency import Lane
from transparent_llm_server.threads import ReadyThreads

_CHECKS, _CHECK_THREADS = 48, 56
_WATCHES, _WATCH_THREADS = 16, 20
"""Calls at a time, and their threads: some more, for those that have just been told to go. So many checks that one
whose request is on its way is not the oldest when others come in a burst."""

_PATH = f"/{health.SERVICE_NAME}/"


class HealthService(health.HealthServicer):  # type: ignore[misc]  # a class without types
    """Tells everybody whether the server serves."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False)

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:
        """Whether it serves, again at each change. A name that nobody serves never changes."""
        if request.service not in self._server_status:
            return _unknown(context)  # the base class would keep every name that was ever asked for
        return super().Watch(request, context, send_response_callback)


def _unknown(context: Any) -> Iterator[Any]:
    """As the protocol wants it: says so, and ends when the watcher leaves."""
    left = threading.Event()
    if context.add_callback(left.set):
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        left.wait()


class HealthLanes:
    """The calls of the health service that one server has in flight, and their threads."""

    def __init__(self, arrival_s: float, stall_s: float) -> None:
        waiting = frozenset({Phase.ARRIVING, Phase.ANSWERED})
        self._check = _lane("health", _CHECKS, _CHECK_THREADS, waiting, arrival_s, stall_s)
        self._watch = _lane("watch", _WATCHES, _WATCH_THREADS, frozenset(Phase), arrival_s, stall_s)

    def of(self, method: str) -> Lane | None:
        """The lane of a method of the health service; None for those of others."""
        if not method.startswith(_PATH):
            return None
        return self._watch if method == f"{_PATH}Watch" else self._check

    def cut(self) -> None:
        """End calls that have waited too long for their client."""
        for lane in (self._check, self._watch):
            lane.in_flight.cut()

    def stop(self) -> None:
        """Let the threads end. After the server has stopped: gRPC may still have a call to answer."""
        for lane in (self._check, self._watch):
            assert lane.threads is not None
            lane.threads.shutdown(wait=False)


def _lane(name: str, most: int, threads: int, give_way: frozenset[Phase], arrival_s: float, stall_s: float) -> Lane:
    bounds = Bounds(most, most, most, give_way, grace_s=0.0, arrival_s=arrival_s, stall_s=stall_s)
    return Lane(InFlight(bounds), lambda _: "", ReadyThreads(threads, name))
