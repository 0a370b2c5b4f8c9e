"""The standard health service, which anybody may call.

So each server that answers it has threads of its own for it, and a call gives way to the next: one whose request has
not come, or one that waits for changes. grpc's own way to wait without a thread is not used: it can lock up when a
watcher leaves during a change.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import grpc
from grpc_health.v1 import health, health_pb2


class HealthService(health.HealthServicer):  # type: ignore[misc]  # a class without types
    """Tells everybody whether the server serves."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False)

    def Watch(
        self,
        request: health_pb2.HealthCheckRequest,
        context: grpc.ServicerContext,
        send_response_callback: Callable[[health_pb2.HealthCheckResponse], None] | None = None,
    ) -> Iterator[health_pb2.HealthCheckResponse]:
        """Whether it serves, again at each change. A name that nobody serves never changes."""
        if request.service not in self._server_status:
            return _unknown(context)  # the base class would keep every name that was ever asked for
        changes: Iterator[health_pb2.HealthCheckResponse] = super().Watch(request, context, send_response_callback)
        return changes


def _unknown(context: grpc.ServicerContext) -> Iterator[health_pb2.HealthCheckResponse]:
    """As the protocol wants it: says so, and ends when the watcher leaves."""
    left = threading.Event()
    if context.add_callback(left.set):
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        left.wait()
