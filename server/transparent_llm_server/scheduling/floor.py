"""Who may need the interpreter for long: one call at a time, for a short turn, owners one after the other.

Threads that only run Python take turns of milliseconds whatever they do; sixteen of them make every other one wait
for sixteen such turns, several times in one small call.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from transparent_llm_server.scheduling.turns import Turns


class Floor:
    """One place, which the threads of calls have in turn."""

    def __init__(self) -> None:
        self._waiting: Turns[threading.Lock] = Turns()
        self._is_taken = False
        self._changing = threading.Lock()

    @contextmanager
    def turn(self, owner: str) -> Iterator[None]:
        """Within this block nobody else has theirs. It should take few milliseconds."""
        with self._changing:
            ticket = self._ticket(owner) if self._is_taken else None
            self._is_taken = True
        if ticket is not None:
            ticket.acquire()  # released by whoever had the turn before
        try:
            yield
        finally:
            self._pass_on()

    def _ticket(self, owner: str) -> threading.Lock:
        ticket = threading.Lock()
        ticket.acquire()
        self._waiting.put(owner, ticket)
        return ticket

    def _pass_on(self) -> None:
        with self._changing:
            if self._waiting:
                self._waiting.take().release()
            else:
                self._is_taken = False
