"""What an object's current run is, and for whom.

An object has one current run. Two threads that both run it, or two tasks of asyncio, would read each other's values:
whoever was overtaken so is told, and given none. One that ran nothing itself reads the run that was made last, so that
an object can be made and run in one thread and read in another.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary

from transparent_llm.errors import InvalidRequestError, NotRunError
from transparent_llm.selection import Selection

_Run = TypeVar("_Run")


class Current(Generic[_Run]):
    """The current run of one object. No lock: each step is one of the interpreter's own, also in a forked process."""

    def __init__(self, latest: tuple[Hashable, _Run] | None = None) -> None:
        self._latest = latest
        self._made: WeakKeyDictionary[object, Hashable] = WeakKeyDictionary()
        """Who ran, and the name of what they ran last."""

    def begin(self, run: _Run, name: Hashable = None) -> None:
        """The caller has run something. Runs of one name have the same values; one without a name is like no other."""
        name = object() if name is None else name
        self._made[caller()] = name
        self._latest = (name, run)

    def get(self) -> _Run:
        """What the caller's reads are of.

        Raises:
            NotRunError: nothing was run yet; or the caller ran something, and another thread has run since.
        """
        latest, mine = self._latest, self._made.get(caller())
        if latest is None:
            raise NotRunError("nothing has been run yet: call run([sentence, ...]) first")
        if mine is not None and mine != latest[0]:
            raise NotRunError(
                "another thread has called run on this object since this one did, so its current run is no longer "
                "yours; an object has one current run: give each thread its own with copy()"
            )
        return latest[1]

    def peek(self) -> _Run | None:
        """The run that was made last, whoever made it."""
        return None if self._latest is None else self._latest[1]

    def renew(self, lost: _Run, again: _Run) -> None:
        """A run that was lost has been made again; unless another one is current by now."""
        latest = self._latest
        if latest is not None and latest[1] is lost:
            self._latest = (latest[0], again)

    def copy(self) -> Current[_Run]:
        """For another object, which begins with the run that was made last."""
        return Current(self._latest)


class OwnSelection:
    """What `reading` blocks ask for: each within the thread, or the task, that opened it."""

    def __init__(self, outside: Selection | None = None) -> None:
        self._outside = outside or Selection()
        self._open: WeakKeyDictionary[object, Selection] = WeakKeyDictionary()

    def get(self) -> Selection:
        """What the caller's reads ask for.

        Raises:
            InvalidRequestError: the caller has opened no block, and another thread is within one: whether it means
                this read cannot be known.
        """
        mine = self._open.get(caller())
        if mine is None and self._open:
            raise InvalidRequestError(
                "another thread is inside a reading block of this object, and it is unclear whether that applies to "
                "this read: open the block in the thread that reads, or give each thread its own copy()"
            )
        return self._outside if mine is None else mine

    @contextmanager
    def within(self, narrow: Callable[[Selection], Selection]) -> Iterator[None]:
        """Open a block for the caller."""
        by = caller()
        before = self._open.get(by)
        self._open[by] = narrow(self._outside if before is None else before)
        try:
            yield
        finally:
            if before is None:
                self._open.pop(by, None)
            else:
                self._open[by] = before

    def copy(self) -> OwnSelection:
        """For another object, made within a block perhaps, which then goes on asking for what the block does."""
        return OwnSelection(self._open.get(caller(), self._outside))


def caller() -> object:
    """Who calls: a task of asyncio, or else a thread."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        try:
            task: object | None = asyncio.current_task()
        except RuntimeError:  # no loop runs in this thread
            task = None
        if task is not None:
            return task
    return threading.current_thread()
