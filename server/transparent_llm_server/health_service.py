"""The standard health service, on threads of its own: anybody may begin such a call and never send its request."""

from __future__ import annotations

import concurrent.futures
from typing import Any

from grpc_health.v1 import health

_THREADS = concurrent.futures.ThreadPoolExecutor(2, thread_name_prefix="health")
"""Of the process: grpc takes them from the class's methods."""


class HealthService(health.HealthServicer):  # type: ignore[misc]  # a class without types
    """Whoever waits for a change holds no thread at all."""

    def __init__(self) -> None:
        super().__init__(experimental_non_blocking=True, experimental_thread_pool=_THREADS)

    def Check(self, request: Any, context: Any) -> Any:  # noqa: D102
        return super().Check(request, context)

    def Watch(self, request: Any, context: Any, send_response_callback: Any = None) -> Any:  # noqa: D102
        return super().Watch(request, context, send_response_callback)

    Check.experimental_thread_pool = _THREADS  # type: ignore[attr-defined]
