"""Who did what, when, and whether they were let: lines of JSON in a file of their own, beside the log of the server.

A line has `time` (UTC), `event` and what is known of it; never a prompt, a token or a hash of one. A call waits neither
for the disk nor for anybody who reads the file.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import stat
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from grpc_health.v1 import health

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.events import OTHER, Call

log = logging.getLogger(__name__)
_MODE = 0o600
_MOST_WAITING = 10_000
"""Lines that are not written yet, a few MB; more are lost and counted."""

_REFUSALS_A_SECOND = 20
"""Each with a line of its own. More are counted, as else strangers could fill the disk."""

_LAST_WORDS_S = 2.0
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")

Tell = Callable[..., None]
"""Called with an event, and with facts about it by name."""


def tell_nobody(event: str, **facts: object) -> None:
    """Where there is no such log."""


class AuditLog:
    """Hears of calls as a listener of `Observed`, and by `tell` of all else. Without a path it writes nothing.

    The file is appended to and, once it was moved away (as logrotate does), made again, for its owner alone. While it
    cannot be written, lines are lost; how many stands in the next line that can be, with the event `lost`.

    Raises:
        InvalidRequestError: the file cannot be written, or everybody may write it.
    """

    def __init__(self, path: Path | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._file = None if path is None else _AuditFile(path)
        self._lines: queue.Queue[bytes | None] = queue.Queue(_MOST_WAITING)
        self._writer = threading.Thread(target=self._write, name="audit", daemon=True)
        self._lock = threading.Lock()
        self._dropped = 0
        self._second, self._refusals = 0, 0

    def start(self, **facts: object) -> None:
        """Begin to write; the first line has these facts of the server."""
        self.tell("start", **facts)
        if self._file is not None:
            self._writer.start()

    def stop(self) -> None:
        """Write what is left, for as long as the disk takes it without waiting."""
        self._tell_of_more_refusals(in_second=-1)
        self.tell("stop")
        if self._file is not None and self._writer.is_alive():
            try:
                self._lines.put(None, timeout=_LAST_WORDS_S)
            except queue.Full:
                return
            self._writer.join(_LAST_WORDS_S)

    def began(self, call: Call) -> None:
        """A call is told of when it is over."""

    def ended(self, call: Call) -> None:
        """Who called what, and how it ended. Health is told to everybody, so it is nothing to tell of."""
        if self._file is None or call.service == health.SERVICE_NAME:
            return
        self._tell_of_more_refusals(int(self._clock()))
        is_refused = call.code in _REFUSED
        if (is_refused or call.method == OTHER) and self._is_one_more_refusal():
            return
        known = {"owner": call.owner, "address": call.address, "reason": call.reason, "problem": call.problem}
        facts = {name: value for name, value in known.items() if value}
        size = {} if is_refused else {"milliseconds": round(call.seconds * 1000, 3), "sent_bytes": call.sent_bytes}
        self.tell("refused" if is_refused else "call", method=call.method, code=call.code, **facts, **size)

    def tell(self, event: str, **facts: object) -> None:
        """Have the log's own thread write a line of this event and its facts; never waits for the disk."""
        if self._file is None:
            return
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        try:
            self._lines.put_nowait(json.dumps({"time": now, "event": event, **facts}).encode("ascii") + b"\n")
        except queue.Full:
            with self._lock:
                self._dropped += 1

    def _is_one_more_refusal(self) -> bool:
        """Whether there were too many in this second already."""
        with self._lock:
            self._refusals += 1
            return self._refusals > _REFUSALS_A_SECOND

    def _tell_of_more_refusals(self, in_second: int) -> None:
        """Those of a second that is over."""
        with self._lock:
            if in_second == self._second:
                return
            more, self._second, self._refusals = self._refusals - _REFUSALS_A_SECOND, in_second, 0
        if more > 0:
            self.tell("refused", calls=more)

    def _write(self) -> None:
        assert self._file is not None
        while (line := self._lines.get()) is not None:
            with self._lock:
                dropped, self._dropped = self._dropped, 0
            self._file.lost += dropped
            self._file.append(line)


class _AuditFile:
    """The file, written by one thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.lost = 0
        """Lines that were not written and of which no line tells yet."""

        self._is_torn = False
        self._told = False
        try:
            self._file: int | None = _opened(path)
        except OSError as error:
            raise InvalidRequestError(f"cannot write the audit log {path}: {error.strerror}") from None
        found = os.fstat(self._file)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & stat.S_IWOTH:
            os.close(self._file)
            raise InvalidRequestError(f"{path} must be a regular file that not everyone may write, as an audit log")

    def append(self, line: bytes) -> None:
        """Write a line, or count it as lost."""
        before = b"\n" if self._is_torn else b""
        if self.lost:
            before += json.dumps({"event": "lost", "lines": self.lost}).encode("ascii") + b"\n"
        try:
            written = os.write(self._current(), before + line)
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        self._is_torn = written < len(before + line)
        if self._is_torn:
            self._lose("there was room for a part of a line")
        else:
            self.lost, self._told = 0, False

    def _current(self) -> int:
        """The file that stands under the path, made again where there is none."""
        if self._file is not None and _is_at(self._path, self._file):
            return self._file
        if self._file is not None:
            os.close(self._file)
        self._file = None
        self._file, self._is_torn = _opened(self._path), False
        return self._file

    def _lose(self, why: str) -> None:
        self.lost += 1
        if not self._told:
            self._told = True
            log.error("cannot write the audit log %s: %s; lines are lost until this is fixed", self._path, why)


def _opened(path: Path) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK  # a pipe would keep this waiting
    return os.open(path, flags, _MODE)


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
