"""Files that may be replaced while a server runs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path

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


def _stamp(path: Path) -> _Stamp:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
