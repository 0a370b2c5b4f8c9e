"""Threads of their own for tokenizers: what takes long there holds up neither the model nor another owner."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from transparent_llm.errors import BusyError
from transparent_llm_server.lifecycle import draining
from transparent_llm_server.models.forward.cancellation import cancellable
from transparent_llm_server.scheduling.turns import Turns

_Result = TypeVar("_Result")
_THREADS = 2
"""Owners whose texts are tokenized at one time. Each thread keeps some 64 MB of what a long text took."""


@dataclass(eq=False)
class _Job(Generic[_Result]):
    """Work that waits, and who waits for it."""

    owner: str
    work: Callable[[], _Result]
    future: Future[_Result] = field(default_factory=Future)


class Tokenizing:
    """Does work for owners in turn, for each of them one piece at a time. Cancel a future to have it dropped.

    Work that has begun is asked to stop by `wanted`. When too much waits, who has most of it waiting is refused.
    """

    def __init__(self, queue_length: int, retry_after_s: float) -> None:
        self._queue_length = queue_length
        self._retry_after_s = retry_after_s
        self._waiting: Turns[_Job[Any]] = Turns()
        self._at_work: set[str] = set()
        self._changed = threading.Condition()
        self._closing = False
        self._threads = [
            threading.Thread(target=self._live, name=f"tokenizer-{i}", daemon=True) for i in range(_THREADS)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def queued(self) -> int:
        """Pieces of work that wait for their turn."""
        with self._changed:
            return len(self._waiting)

    def submit(self, owner: str, work: Callable[[], _Result]) -> Future[_Result]:
        """Put work at the end of its owner's line.

        Raises:
            BusyError: too much waits, and no other owner has more of it.
            UnavailableError: the server ends.
        """
        job = _Job(owner, work)
        with self._changed:
            if self._closing:
                raise draining()
            self._make_room(owner)
            self._waiting.put(owner, job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._left(owner, future) if future.cancelled() else None)
        return job.future  # whose callback must not know the job: a circle that holds texts

    def close(self, timeout_s: float) -> bool:
        """Refuse what waits, and wait so long for what is under way; whether it came to its end."""
        with self._changed:
            self._closing = True
            left, self._waiting = list(self._waiting), Turns()
            self._changed.notify_all()
        for job in left:
            _refuse(job, draining())
        ends_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _make_room(self, owner: str) -> None:
        if len(self._waiting) < self._queue_length:
            return
        busiest = self._waiting.busiest_owner()
        if busiest is None or self._waiting.count(busiest) <= self._waiting.count(owner) + 1:
            raise self._busy()
        _refuse(self._waiting.take_back(busiest), self._busy())  # who has others in the line

    def _busy(self) -> BusyError:
        return BusyError(
            f"{self._queue_length} calls are already waiting for a tokenizer; try again in {self._retry_after_s:g} s",
            metadata={"queue_length": str(self._queue_length)},
            retry_after_s=self._retry_after_s,
        )

    def _left(self, owner: str, future: Future[_Result]) -> None:
        """Nobody waits for it any more."""
        with self._changed:
            self._waiting.drop(owner, lambda job: job.future is future)

    def _live(self) -> None:
        while (job := self._next()) is not None:
            owner = job.owner
            _do(job)
            del job  # a thread that waits must not keep the last text and its tokens alive
            with self._changed:
                self._at_work.discard(owner)

    def _next(self) -> _Job[Any] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closing or self._whose_turn() is not None)
            owner = self._whose_turn()
            if owner is None:
                return None
            self._at_work.add(owner)
            return self._waiting.take_of(owner)

    def _whose_turn(self) -> str | None:
        return self._waiting.next_owner(but=self._at_work)


def _do(job: _Job[Any]) -> None:
    """A future counts as waiting until its result is there, so that it can be cancelled meanwhile."""
    try:
        with cancellable(lambda: not job.future.cancelled()):
            result = job.work()
    except BaseException as error:
        _refuse(job, error)
    else:
        if job.future.set_running_or_notify_cancel():
            job.future.set_result(result)
    finally:
        del job  # an exception knows this frame, and the future the exception: a circle that holds texts


def _refuse(job: _Job[Any], error: BaseException) -> None:
    if job.future.set_running_or_notify_cancel():
        job.future.set_exception(error)
