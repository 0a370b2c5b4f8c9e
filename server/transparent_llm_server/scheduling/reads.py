"""Reads that wait for the model thread: which of them may come in between the layers of a run or the pieces of a long
read, and which wait until it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum
from typing import Generic, TypeVar

from transparent_llm_server.scheduling.turns import Turns

_Job = TypeVar("_Job")


class Kind(IntEnum):
    """Of a read."""

    INTERRUPTING = 0
    """Comes in between two layers of a run, and between two pieces of a long read."""

    PATIENT = 1
    """Comes in between two pieces of a long read."""

    LONG = 2
    """Lets others in, and comes in nowhere."""


class Reads(Generic[_Job]):
    """Of each kind flows have turns, and the kinds alternate. Not safe for threads."""

    def __init__(self) -> None:
        self._turns: dict[Kind, Turns[_Job]] = {kind: Turns() for kind in Kind}
        self._last = Kind.LONG

    def __bool__(self) -> bool:
        return any(self._turns.values())

    def __iter__(self) -> Iterator[_Job]:
        return iter([job for turns in self._turns.values() for job in turns])

    def put(self, flow: str, job: _Job, kind: Kind) -> None:
        """Behind the other jobs of its flow and kind."""
        self._turns[kind].put(flow, job)

    def take(self) -> tuple[_Job, bool]:
        """The next one, where nothing is under way, and whether it lets others in."""
        kind = next(kind for kind in self._in_turn() if self._turns[kind])
        self._last = kind
        return self._turns[kind].take(), kind is Kind.LONG

    def take_within(self, *, run: bool) -> _Job | None:
        """The next one within a run or a long read; None if nobody waits who may come in there."""
        last = Kind.INTERRUPTING if run else Kind.PATIENT
        kind = next((kind for kind in self._in_turn() if kind <= last and self._turns[kind]), None)
        if kind is None:
            return None
        self._last = kind
        return self._turns[kind].take()

    def _in_turn(self) -> list[Kind]:
        """All kinds, the last one that was taken at the end."""
        kinds, after = list(Kind), self._last + 1
        return kinds[after:] + kinds[:after]
