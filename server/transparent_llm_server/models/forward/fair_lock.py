"""A lock whose holders change in the order of arrival, and that nobody waits for in vain."""

from __future__ import annotations

import threading
from collections import deque

from transparent_llm_server.models.forward.cancellation import raise_if_cancelled

_LOOK_S = 0.05
"""How often somebody who waits looks whether that is still wanted."""


class FairLock:
    """Entered by one thread at a time. A thread that leaves and enters again, as in a loop, lets others go first."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._line: deque[object] = deque()

    def __enter__(self) -> None:
        """Wait for this thread's turn.

        Raises:
            AbandonedError: nobody waits for what it would do.
        """
        place = object()
        with self._changed:
            self._line.append(place)
            try:
                while self._line[0] is not place:
                    raise_if_cancelled()
                    self._changed.wait(_LOOK_S)
            except BaseException:
                self._leave(place)
                raise

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._leave(self._line[0])

    def _leave(self, place: object) -> None:
        self._line.remove(place)
        self._changed.notify_all()
