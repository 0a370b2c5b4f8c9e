"""The thread on which models are loaded, one after the other: two at a time would take twice the memory on the way."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

_Work = Callable[[], None]


class ModelLoader:
    """Does what it is given, in order, on a thread that begins with the first piece of work."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def submit(self, work: _Work) -> None:
        """Put it behind what is there. It must not raise."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._live, name="loader", daemon=True)
                self._thread.start()
        self._work.put(work)

    def close(self, timeout_s: float) -> bool:
        """End the thread after what it has begun; whether it did within the time. If not, it is left alone."""
        if self._thread is None:
            return True
        self._work.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _live(self) -> None:
        while (work := self._work.get()) is not None:
            work()
            del work  # it may hold a model
