"""A call of the server's own, made again and again: whether it serves is found out, not assumed.

gRPC serves on one thread, and accepts connections with file descriptors. A process that has lost the one or has no more
of the other looks alive from within. The canary comes in as any client does, by a connection of its own each time,
through a socket file that only this user can reach, and is answered on a thread that only it can take.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Any

import grpc

from transparent_llm_server.rpc.concurrency.threads import ReadyThreads
from transparent_llm_server.rpc.interceptors.base import Continuation, Handler, Request, Response

log = logging.getLogger(__name__)
_LOST_TO_TELL, _LOST_TO_END = 2, 6
"""Calls in a row that did not come back: after so many the server says that it does not serve, after more it ends."""


class Canary(grpc.ServerInterceptor):
    """The outermost interceptor: its own calls go no further, so that nobody counts or logs them.

    `on_change` is told whether calls come back, when that changes; `on_lost` once, when they have not for long.
    """

    def __init__(self, every_s: float, on_change: Callable[[bool], None], on_lost: Callable[[], None]) -> None:
        self._every_s, self._on_change, self._on_lost = every_s, on_change, on_lost
        self._path = f"/transparent_llm.Canary/{secrets.token_hex(16)}"  # nobody else can know it
        answer = _Answer(ReadyThreads(1, "canary"))
        self._handler: Handler[Any, Any] = grpc.unary_unary_rpc_method_handler(answer)
        self._threads = answer.experimental_thread_pool
        self._folder = ""
        self._lost = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._live, name="canary-caller", daemon=True)

    def listen(self, server: grpc.Server) -> None:
        """Give it its own way in. Before the server starts."""
        try:
            self._folder = tempfile.mkdtemp(prefix="transparent-llm-")
            server.add_insecure_port(f"unix:{self._folder}/canary")
        except (OSError, RuntimeError) as error:
            log.warning("no socket file for the canary (%s): nothing checks whether calls are answered", error)
            self._every_s = 0.0

    def start(self) -> None:
        """Begin to call. After the server has started."""
        if self._every_s:
            self._thread.start()

    def stop(self) -> None:
        """Make no more calls, and wait for the one that is under way, for as long as it may take."""
        self._stopped.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(self._every_s)

    def close(self) -> None:
        """Let its thread end. After the server has stopped: gRPC may still have a call of it to answer."""
        self._threads.shutdown(wait=False)
        shutil.rmtree(self._folder, ignore_errors=True)

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Answer the canary's own calls; all others go on."""
        return self._handler if details.method == self._path else continuation(details)

    def _live(self) -> None:
        while not self._stopped.wait(self._every_s):
            error = self._call()
            if self._stopped.is_set():
                return
            if error is None:
                self._came_back()
            else:
                self._was_lost(error)

    def _came_back(self) -> None:
        if self._lost >= _LOST_TO_TELL:
            log.warning("calls are answered again")
            self._on_change(True)
        self._lost = 0

    def _was_lost(self, error: str) -> None:
        self._lost += 1
        log.error("the server's own call was not answered, %d times in a row: %s", self._lost, error)
        if self._lost == _LOST_TO_TELL:
            self._on_change(False)
        if self._lost == _LOST_TO_END:
            self._on_lost()

    def _call(self) -> str | None:
        """Why it did not come back; None if it did."""
        try:
            options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0)]
            with grpc.insecure_channel(f"unix:{self._folder}/canary", options) as channel:
                call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(self._path)
                call(b"", timeout=max(self._every_s, 1.0))
        except grpc.RpcError as error:
            details = error.details() if isinstance(error, grpc.Call) else None
            return str(details or error)
        except Exception as error:  # no thread, no descriptor, no memory: that is what it is here to find
            return f"{type(error).__name__}: {error}"
        return None


class _Answer:
    """Nothing, on a thread that is there already."""

    def __init__(self, threads: ReadyThreads) -> None:
        self.experimental_thread_pool = threads

    def __call__(self, request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: ARG002
        return b""
