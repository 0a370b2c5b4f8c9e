"""A server as a process: one line on standard output when it is ready, a clean end on SIGTERM."""

from __future__ import annotations

import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from transparent_llm_server.app import Server
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.json_log import JsonLines

log = logging.getLogger(__name__)
_PARALLELISM = "TOKENIZERS_PARALLELISM"
"""What the tokenizers library reads at each call. By default all calls of a process share a few threads of its own,
where a short text waits for the long ones of others; without them each is tokenized by the thread that asks."""

_SWITCH_S = 0.001
"""After this time a thread at work in Python lets another one go on, if one waits. By default it is five times as long,
and a small read, which waits so some ten times, is late where somebody else's large call is worked on."""

_LAST_WORDS_S = 1.0
"""For answers that are on their way, and for whoever asks for the health."""


class _AskedToStop(BaseException):
    """SIGTERM or Ctrl-C, wherever the main thread is: waiting, or still loading."""


def serve(config: ServerConfig, load: Callable[[Server], None] = Server.load) -> int:
    """Serve what `load` loads until SIGTERM or Ctrl-C; then drain and return the exit code 0.

    A server that can compute no more ends the process at once with the exit code 70, 71 or 72.

    Raises:
        InvalidRequestError: an address, device or model that cannot be used.
        ModelRefusedError: a model that fails its checks.
    """
    _log_to_stderr(config.access_log)
    os.environ.setdefault(_PARALLELISM, "false")
    sys.setswitchinterval(_SWITCH_S)

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
        if server.metrics_address:
            log.info("metrics on http://%s/metrics", server.metrics_address)
        log.info("listening on %s, loading models", address)
        load(server)
        print(f"ready: {address}", flush=True)
        _end(server.wait_for_failure())
    except _AskedToStop:
        pass
    finally:
        server.stop()
        log.info("stopped")
    return 0


def _log_to_stderr(form: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(JsonLines() if form == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    if form == "json":
        logging.captureWarnings(True)
        _quiet_libraries()


def _quiet_libraries() -> None:
    """Of those that write to standard error by themselves: their logs come through ours, their progress bars do not."""
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # public, in their docs
    from transformers.utils import logging as theirs

    theirs.disable_default_handler()
    theirs.enable_propagation()
    theirs.disable_progress_bar()
    disable_progress_bars()
    _let_torch_speak_through_ours()


def _let_torch_speak_through_ours() -> None:
    """Many of its loggers have a handler of their own for standard error."""
    for name in [name for name in logging.root.manager.loggerDict if name.partition(".")[0] == "torch"]:
        logger = logging.getLogger(name)
        own = [handler for handler in logger.handlers if type(handler) is logging.StreamHandler]
        for handler in own:
            logger.removeHandler(handler)
            logger.propagate = True


def _end(exit_code: int) -> NoReturn:
    """Without draining, nor freeing what is on a device that does not answer."""
    log.critical("nothing can be computed any more: ending with exit code %d", exit_code)
    time.sleep(_LAST_WORDS_S)
    logging.shutdown()
    os._exit(exit_code)
