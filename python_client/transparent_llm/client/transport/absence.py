"""Since when a client's server is lost: one clock for all of its calls."""

from __future__ import annotations

_FORGOTTEN_AFTER_S = 60.0
"""A loss that no call has met for so long says nothing any more of the server."""


class Absence:
    """A call that fails and is made again, by a read ahead and then by its caller, would wait anew each time.

    No lock: each step is one of the interpreter's own, and the worst of a race is a wait that is a try longer.
    """

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0

    def since(self, now: float) -> float:
        """A call has found the server lost: when the first one did, after which none was answered."""
        first, last, self._last = self._first, self._last, now
        if first is None or now - last > _FORGOTTEN_AFTER_S:
            self._first = first = now
        return first

    def end(self) -> None:
        """The server has answered."""
        self._first = None
