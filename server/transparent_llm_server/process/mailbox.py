"""What the main thread of a process waits for: words of other threads, and of signals."""

from __future__ import annotations

import os
import queue
import signal
from contextlib import suppress
from typing import Generic, TypeVar

_Letter = TypeVar("_Letter")


class Mailbox(Generic[_Letter]):
    """Letters in order of arrival. Any thread and any signal's handler may put one there; the main thread waits.

    A signal that reaches another thread, or the main one just before it waits, would wake nobody, and its handler would
    not run. So the interpreter is asked to write to a pipe when there is one, and that is what is waited for.
    """

    def __init__(self) -> None:
        self._letters: queue.SimpleQueue[_Letter] = queue.SimpleQueue()
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(self._wake, warn_on_full_buffer=False)

    def put(self, letter: _Letter) -> None:
        """Add one; in the midst of anything."""
        self._letters.put(letter)
        with suppress(BlockingIOError):  # it is awake
            os.write(self._wake, b"\0")

    def get(self) -> _Letter:
        """The next one, as soon as there is one."""
        while self._letters.empty():
            os.read(self._woken, 4096)
        return self._letters.get()
