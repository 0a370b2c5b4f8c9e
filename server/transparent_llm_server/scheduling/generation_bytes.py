"""The memory that generations under way may take for what they remember of their rows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transparent_llm.errors import BusyError, TooLargeError


class GenerationBytes:
    """Of a server, counted before they are taken. Safe for threads."""

    def __init__(self, most: int, retry_after_s: float) -> None:
        self._most, self._retry_after_s = most, retry_after_s
        self._lock = threading.Lock()
        self.taken = 0
        """By all that are under way."""

    @contextmanager
    def taking(self, nbytes: int) -> Iterator[None]:
        """Around a generation that remembers so much at the most.

        Raises:
            TooLargeError: it is more than all together may take.
            BusyError: there is no room beside the others now.
        """
        if nbytes > self._most:
            raise TooLargeError(
                f"this generation remembers up to {nbytes} bytes of its rows, and all together may take {self._most} "
                "here: ask for fewer or shorter rows, or fewer new tokens",
                metadata={"needed": str(nbytes), "allowed": str(self._most)},
            )
        with self._lock:
            if self.taken + nbytes > self._most:
                raise BusyError(
                    f"this generation remembers up to {nbytes} bytes of its rows, and those under way have "
                    f"{self.taken} of {self._most}; try again in {self._retry_after_s:g} s",
                    metadata={"needed": str(nbytes), "used": str(self.taken), "allowed": str(self._most)},
                    retry_after_s=self._retry_after_s,
                )
            self.taken += nbytes
        try:
            yield
        finally:
            with self._lock:
                self.taken -= nbytes
