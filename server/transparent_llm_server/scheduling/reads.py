"""Reads that wait for the model thread: those that may interrupt a run, and those that wait until it has ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Generic, TypeVar

from transparent_llm_server.scheduling.turns import Turns

_Job = TypeVar("_Job")


class Reads(Generic[_Job]):
    """Of each kind flows have turns, and between runs the two kinds alternate. Not safe for threads."""

    def __init__(self) -> None:
        self._patient: Turns[_Job] = Turns()
        self._interrupting: Turns[_Job] = Turns()
        self._interrupted_last = False

    def __bool__(self) -> bool:
        return bool(self._interrupting or self._patient)

    def __iter__(self) -> Iterator[_Job]:
        return iter([*self._interrupting, *self._patient])

    def put(self, flow: str, job: _Job, *, may_interrupt: bool) -> None:
        """Behind the other jobs of its flow and kind."""
        (self._interrupting if may_interrupt else self._patient).put(flow, job)

    def take(self) -> _Job:
        """The next one, between runs."""
        self._interrupted_last = bool(self._interrupting) and not (self._patient and self._interrupted_last)
        return (self._interrupting if self._interrupted_last else self._patient).take()

    def take_interrupting(self) -> _Job | None:
        """The next one within a run; None if nobody waits who may interrupt it."""
        return self._interrupting.take() if self._interrupting else None
