"""A server as a process: one line on standard output when it is ready, a clean end on SIGTERM."""

from __future__ import annotations

import logging
import signal
import sys
import threading
from types import FrameType

from transparent_llm_server.app import Server
from transparent_llm_server.config import ServerConfig

log = logging.getLogger(__name__)


class _AskedToStop(BaseException):
    """SIGTERM or Ctrl-C, wherever the main thread is: waiting, or still loading."""


def serve(config: ServerConfig) -> int:
    """Serve until SIGTERM or Ctrl-C; then drain and return the exit code 0.

    Raises:
        InvalidRequestError: an address, device or model that cannot be used.
        ModelRefusedError: a model that fails its checks.
    """
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")

    def ask(signum: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)  # a second one ends the process at once
        log.info("%s: draining for up to %g s", signal.Signals(signum).name, config.drain_s)
        raise _AskedToStop

    server = Server(config)
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, ask)
        address = server.start()
        log.info("listening on %s, loading models", address)
        server.load()
        print(f"ready: {address}", flush=True)
        threading.Event().wait()
    except _AskedToStop:
        pass
    finally:
        server.stop()
        log.info("stopped")
    return 0
