"""The standard health service, on threads of its own.

Anybody may begin such a call, never send its request, or wait for changes for ever; calls that need a token go on all
the same. grpc's own way to wait without a thread is not used: it can lock up when a watcher leaves during a change.
"""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from typing import Any

from grpc_health.v1 import health, health_pb2

# Of the process, as grpc finds them at the methods of the class.
_CHECKS = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="health")
_WATCHES = concurrent.futures.ThreadPoolExecutor(16, thread_name_prefix="watch")


class HealthService(health.HealthServicer):  # type: ignore[misc]  # a class without types
    """Tells everybody whether the server serves."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=False, experimental_thread_pool=_WATCHES)

    def Check(self, request: Any, context: Any) -> Any:
        """Whether it serves now."""
        return super().Check(request, context)

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:
        """The same, again at each change. A name that nobody serves never changes."""
        if request.service not in self._server_status:
            return _unknown(context)  # the base class would keep every name that was ever asked for
        return super().Watch(request, context, send_response_callback)

    Check.experimental_thread_pool = _CHECKS  # type: ignore[attr-defined]


def _unknown(context: Any) -> Iterator[Any]:
    """As the protocol wants it: says so, and ends when the watcher leaves."""
    left = threading.Event()
    if context.add_callback(left.set):
        yield health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        left.wait()
