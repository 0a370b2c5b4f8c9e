"""Text on its way to a file descriptor that may be slow, full or gone: whoever writes neither waits nor fails."""

from __future__ import annotations

import io
import os
import select
import threading
from collections import deque
from collections.abc import Callable

_ROOM_BYTES = 2**20
"""Text that waits to be written; what comes beyond it is lost."""


class PatientStream(io.TextIOBase):
    """Written by a thread of its own. Lines that find no room, or that the descriptor does not take, are lost.

    How many is told by a line that `lost_line` makes, as soon as the descriptor takes something again.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, fd: int, lost_line: Callable[[int], str]) -> None:
        self._fd = fd
        self._lost_line = lost_line
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._lost = 0
        self._taken = self._settled = 0
        self._is_torn = False
        self._changed = threading.Condition()
        threading.Thread(target=self._work, name="log", daemon=True).start()

    def write(self, text: str, /) -> int:
        """Put it behind what waits."""
        data = text.encode(self.encoding, self.errors)
        with self._changed:
            if self._waiting_bytes + len(data) > _ROOM_BYTES:
                self._lost += data.count(b"\n")
            else:
                self._waiting.append(data)
                self._waiting_bytes += len(data)
                self._taken += 1
                self._changed.notify_all()
        return len(text)

    def drain(self, within_s: float) -> None:
        """Wait until all that is there now is written or lost, and no longer than that. `flush` does not wait."""
        with self._changed:
            last = self._taken
            self._changed.wait_for(lambda: self._settled >= last, within_s)

    def writable(self) -> bool:
        """Whether text can be written, as it always can: what finds no room is lost."""
        return True

    def isatty(self) -> bool:
        """Whether somebody looks at it."""
        return os.isatty(self._fd)

    def fileno(self) -> int:
        """The descriptor, where C libraries write by themselves."""
        return self._fd

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data = self._waiting[0]
            is_written = self._write(data)
            with self._changed:
                self._lost += 0 if is_written else data.count(b"\n")
                self._waiting.popleft()
                self._waiting_bytes -= len(data)
                lost = 0 if self._waiting else self._lost
            if lost and self._write(self._lost_line(lost).encode(self.encoding, self.errors)):
                with self._changed:
                    self._lost -= lost
            with self._changed:
                self._settled += 1
                self._changed.notify_all()

    def _write(self, data: bytes) -> bool:
        """Whether all of it was taken; what was torn before is ended first."""
        whole = b"\n" + data if self._is_torn else data
        rest = whole
        try:
            while rest:
                rest = rest[self._some_written(rest) :]
        except OSError:
            self._is_torn = self._is_torn or len(rest) < len(whole)
            return False
        self._is_torn = False
        return True

    def _some_written(self, data: bytes) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:
            room = select.poll()
            room.register(self._fd, select.POLLOUT)
            room.poll()
            return 0
