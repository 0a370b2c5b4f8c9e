"""A server as a process: a line on standard output when it is ready, one for its page if it has one, a clean end on
SIGTERM.

The main thread waits for signals and does nothing else, so that they are heard whatever the server is at.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import NoReturn

from transparent_llm.runtime import memory
from transparent_llm.wire import ring
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.process.limits import raise_limits
from transparent_llm_server.process.mailbox import Mailbox
from transparent_llm_server.process.standard_streams import STANDARD_ERROR, StandardStreams
from transparent_llm_server.registry.source import fetch
from transparent_llm_server.telemetry.json_log import JsonLines

log = logging.getLogger(__name__)
_PARALLELISM = "TOKENIZERS_PARALLELISM"
"""What the tokenizers library reads at each call. By default all calls of a process share a few threads of its own,
where a short text waits for the long ones of others; without them each is tokenized by the thread that asks."""

_TURN_S = 0.0005
"""How long a thread keeps the interpreter while others wait for it: a tenth of Python's default, as each of many busy
threads has its turn before a small call goes on."""

_LAST_WORDS_S = 1.0
"""For answers that are on their way, and for whoever asks for the health."""

_SHORT_TURN_S = 1e-4
"""For which a thread has the interpreter at the end, when others wait: those that end it are not to wait for those that
are to be ended."""

_LONGEST_END_S = 15.0
"""Beyond the drain time: only what holds up all of Python could take the end longer."""


@dataclass(frozen=True)
class _Failed:
    """The server can compute no more."""

    exit_code: int


@dataclass(frozen=True)
class _Drain:
    """An administrator has the server end."""

    name = "an administrator"


_Event = signal.Signals | _Drain | _Failed | BaseException
"""What the main thread is to hear of."""


def serve(config: ServerConfig, load: Callable[[Server], None] = Server.load) -> NoReturn:
    """Serve what `load` loads until SIGTERM or Ctrl-C; then drain and end the process with the exit code 0.

    SIGHUP has the files of tokens and certificates read again; where the process has a terminal, that has gone, and
    the server drains. One that can compute no more ends the process at once with the exit code 70 to 73.

    Raises:
        InvalidRequestError: an address, device or model that cannot be used.
        ModelRefusedError: a model that fails its checks.
    """
    form = _form_of(config.access_log)
    streams = StandardStreams(partial(_lost_line, form))
    _log_to(streams, form)
    if config.fetch_only:
        fetch(config)
        streams.end(0)
    os.environ.setdefault(_PARALLELISM, "false")
    sys.setswitchinterval(_TURN_S)
    memory.share_heap()
    raise_limits(config)
    events, ends = Mailbox[_Event](), _ending_signals()
    _hear(ends, events)
    server = Server(config)
    ring.sweep()
    threading.Thread(target=_live, args=(server, load, streams, events), name="live", daemon=True).start()
    while (event := events.get()) is signal.SIGHUP and signal.SIGHUP not in ends:
        log.info("SIGHUP: reading the files of tokens and certificates again")
        server.read_files_again()
    if isinstance(event, _Failed):
        _fail(event.exit_code, streams)
    if isinstance(event, signal.Signals | _Drain):
        log.info("%s: draining for up to %g s", event.name, config.drain_s)
        _stop(server, config)
        streams.end(0)
    _stop(server, config)
    raise event


def _live(server: Server, load: Callable[[Server], None], streams: StandardStreams, events: Mailbox[_Event]) -> None:
    """All that takes time, on a thread of its own; the main one hears how it ends."""
    try:
        address = server.start()
        if server.metrics_address:
            log.info("metrics on http://%s/metrics", server.metrics_address)
        log.info("listening on %s, loading models", address)
        load(server)
        memory.set_aside()
        memory.give_back()  # what loading took for a while
        streams.announce(f"ready: {address}")
        if server.page_address:
            streams.announce(f"page: {server.page_address}")
        exit_code = server.wait_for_end()
        events.put(_Failed(exit_code) if exit_code else _Drain())
    except BaseException as error:
        events.put(error)


def _ending_signals() -> Collection[signal.Signals]:
    """Who closes the terminal of a server means its end; one without a terminal is told to read its files."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return signal.SIGTERM, signal.SIGINT
    return signal.SIGTERM, signal.SIGINT, signal.SIGHUP


def _hear(ends: Collection[signal.Signals], events: Mailbox[_Event]) -> None:
    """Put signals among the events; `nohup`, which wants SIGHUP ignored, gets that."""

    def hear(number: int, _frame: FrameType | None) -> None:
        if number in ends:
            for end in ends:
                signal.signal(end, signal.SIG_DFL)  # a second one ends the process at once
        events.put(signal.Signals(number))

    for number in {*ends, signal.SIGHUP}:
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, hear)


def _stop(server: Server, config: ServerConfig) -> None:
    """Drain, within limits that hold whatever goes on."""
    sys.setswitchinterval(_SHORT_TURN_S)
    limit_s = config.drain_announce_s + config.drain_s + _LONGEST_END_S
    with suppress(RuntimeError):  # no more threads: then the end waits for nobody either
        faulthandler.dump_traceback_later(limit_s, exit=True, file=STANDARD_ERROR)  # needs no interpreter's lock
    try:
        for what in server.stop():
            log.warning("abandoned, as it did not end in time: %s", what)
    except Exception:
        log.exception("could not shut down cleanly")
    faulthandler.cancel_dump_traceback_later()
    log.info("stopped")


def _form_of(access_log: str) -> logging.Formatter:
    if access_log == "json":
        return JsonLines()
    return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")


def _lost_line(form: logging.Formatter, count: int) -> str:
    """What stands in the log instead of lines that it did not take."""
    message = "%d lines of this log were lost: nothing read them"
    return form.format(logging.LogRecord(__name__, logging.WARNING, __file__, 0, message, (count,), None)) + "\n"


def _log_to(streams: StandardStreams, form: logging.Formatter) -> None:
    handler = logging.StreamHandler(streams.error)
    handler.setFormatter(form)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
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


def _fail(exit_code: int, streams: StandardStreams) -> NoReturn:
    """Without draining, nor freeing what is on a device that does not answer."""
    log.critical("nothing can be computed any more: exiting with code %d", exit_code)
    time.sleep(_LAST_WORDS_S)
    streams.end(exit_code)
