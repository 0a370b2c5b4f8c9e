"""The three streams of a server process: it reads none, and whoever reads what it writes cannot hold it up."""

from __future__ import annotations

import atexit
import logging
import os
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from transparent_llm_server.process.patient_stream import PatientStream

_INPUT, _OUTPUT, STANDARD_ERROR = range(3)
_LAST_WORDS_S = 0.5
"""For what is still to be written when the process ends."""


class StandardStreams:
    """Those of this process, from now to its end. There is nobody to answer a question: input is empty.

    Output is for `announce`; what libraries print goes to standard error, as the log does.
    """

    def __init__(self, lost_line: Callable[[int], str]) -> None:
        for fd in (_INPUT, _OUTPUT, STANDARD_ERROR):
            _fill(fd)
        _connect_to_nothing(_INPUT)
        self._output = PatientStream(_OUTPUT, lambda _: "")
        self.error = PatientStream(STANDARD_ERROR, lost_line)
        """Where the log goes."""

        before, sys.stdout, sys.stderr = sys.stderr, self.error, self.error
        _move_handlers(before, self.error)
        atexit.register(self.drain)

    def announce(self, line: str) -> None:
        """Write a line to standard output."""
        self._output.write(f"{line}\n")

    def drain(self) -> None:
        """Wait a moment for what is still to be written."""
        self._output.drain(_LAST_WORDS_S)
        self.error.drain(_LAST_WORDS_S)

    def end(self, exit_code: int) -> NoReturn:
        """End the process now, whatever its threads are at: the interpreter's own end would wait for them."""
        logging.shutdown()
        self.drain()
        os._exit(exit_code)


def _fill(fd: int) -> None:
    """What was closed when the process began would be the next file or connection, which libraries then write into."""
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        _connect_to_nothing(fd)
        return
    if fd != _INPUT and stat.S_ISFIFO(mode):
        _never_wait(fd)


def _connect_to_nothing(fd: int) -> None:
    nothing = os.open(os.devnull, os.O_RDONLY if fd == _INPUT else os.O_WRONLY)
    if nothing == fd:
        os.set_inheritable(fd, True)
        return
    os.dup2(nothing, fd)
    os.close(nothing)


def _never_wait(fd: int) -> None:
    """C libraries write there by themselves, and would wait in the midst of their work for a pipe that nobody reads.

    The pipe is opened again where that can be done: others who have it count on waiting.
    """
    with suppress(OSError):
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
        os.dup2(own, fd)
        os.close(own)


def _move_handlers(before: object, now: PatientStream) -> None:
    """Of libraries that took hold of standard error when they were imported."""
    for logger in logging.root.manager.loggerDict.values():
        for handler in logger.handlers if isinstance(logger, logging.Logger) else ():
            if type(handler) is logging.StreamHandler and handler.stream is before:
                handler.setStream(now)
