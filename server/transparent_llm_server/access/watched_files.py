"""Files that may be replaced while a server runs."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sized
from pathlib import Path
from typing import Generic, TypeVar

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.access.audit_log import Tell, tell_nobody

log = logging.getLogger(__name__)
_Contents = TypeVar("_Contents", bound=Sized)
_Stamp = tuple[int, ...] | None


class WatchedFiles:
    """Tells whether any of some files was changed, replaced or taken away. It looks at most once in `every_s`."""

    def __init__(
        self, paths: Iterable[Path], every_s: float = 1.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._paths = tuple(paths)
        self._every_s = every_s
        self._clock = clock
        self._looked_at = clock()
        self._stamps = self._look()

    def have_changed(self) -> bool:
        """Since the last time that this was asked, or since the beginning."""
        now = self._clock()
        if now - self._looked_at < self._every_s:
            return False
        self._looked_at = now
        before, self._stamps = self._stamps, self._look()
        return before != self._stamps

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._paths]


class WatchedFile(Generic[_Contents]):
    """What `read` makes of a file, again when it changes; while it can make nothing of it, what was last good counts.

    `what` are the contents in words, for the log.

    Raises:
        InvalidRequestError: of `read`, the first time.
    """

    def __init__(
        self,
        path: Path,
        read: Callable[[Path], _Contents],
        what: str,
        clock: Callable[[], float] = time.monotonic,
        tell: Tell = tell_nobody,
    ) -> None:
        self._path, self._read, self._what, self._tell = path, read, what, tell
        self._file = WatchedFiles((path,), clock=clock)  # before it is read: a change meanwhile is seen later
        self._lock = threading.Lock()
        self._contents = read(path)

    def contents(self) -> _Contents:
        """As they are now, or were about a second ago. It is the same object until they change."""
        with self._lock:
            if self._file.have_changed():
                self._read_again()
            return self._contents

    def read_again(self) -> None:
        """Now, whether the file seems to have changed or not."""
        with self._lock:
            self._read_again()

    def _read_again(self) -> None:
        try:
            self._contents = self._read(self._path)
        except InvalidRequestError as error:
            log.warning("%s; the %s read before stay in effect", error, self._what)
            self._tell("not read", file=str(self._path), why=str(error))
            return
        log.info("%s was read again: %d %s", self._path, len(self._contents), self._what)
        self._tell("read again", file=str(self._path), entries=len(self._contents))


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
