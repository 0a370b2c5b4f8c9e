"""Threads of their own for tokenizers: what takes long there holds up neither the model nor another owner."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from transparent_llm.errors import BusyError, UnavailableError
from transparent_llm_server.models.forward.cancellation import cancellable

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
        self._waiting: OrderedDict[str, deque[_Job[Any]]] = OrderedDict()  # by owner, in the order of their turns
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
            return self._count()

    def submit(self, owner: str, work: Callable[[], _Result]) -> Future[_Result]:
        """Put work at the end of its owner's line.

        Raises:
            BusyError: too much waits, and no other owner has more of it.
            UnavailableError: the server ends.
        """
        job = _Job(owner, work)
        with self._changed:
            if self._closing:
                raise _draining()
            self._make_room(owner)
            self._waiting.setdefault(owner, deque()).append(job)
            self._changed.notify()
        job.future.add_done_callback(lambda future: self._left(owner, future) if future.cancelled() else None)
        return job.future  # whose callback must not know the job: a circle that holds texts

    def close(self, timeout_s: float) -> bool:
        """Refuse what waits, and wait so long for what is under way; whether it came to its end."""
        with self._changed:
            self._closing = True
            left = [job for jobs in self._waiting.values() for job in jobs]
            self._waiting.clear()
            self._changed.notify_all()
        for job in left:
            _refuse(job, _draining())
        ends_at = time.monotonic() + timeout_s
        for thread in self._threads:
            thread.join(max(0.0, ends_at - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _count(self) -> int:
        return sum(map(len, self._waiting.values()))

    def _make_room(self, owner: str) -> None:
        if self._count() < self._queue_length:
            return
        most = max(self._waiting.values(), key=len, default=deque())
        if len(most) <= len(self._waiting.get(owner, ())) + 1:
            raise self._busy()
        _refuse(most.pop(), self._busy())  # its owner has others in the line

    def _busy(self) -> BusyError:
        return BusyError(
            f"{self._queue_length} calls wait for a tokenizer already; try again in {self._retry_after_s:g} s",
            metadata={"queue_length": str(self._queue_length)},
            retry_after_s=self._retry_after_s,
        )

    def _left(self, owner: str, future: Future[Any]) -> None:
        """Nobody waits for it any more."""
        with self._changed:
            if owner in self._waiting:
                self._put_back(owner, deque(job for job in self._waiting[owner] if job.future is not future))

    def _put_back(self, owner: str, jobs: deque[_Job[Any]]) -> None:
        if jobs:
            self._waiting[owner] = jobs
        else:
            del self._waiting[owner]

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
            jobs = self._waiting[owner]
            job = jobs.popleft()
            self._waiting.move_to_end(owner)
            self._put_back(owner, jobs)
            self._at_work.add(owner)
            return job

    def _whose_turn(self) -> str | None:
        return next((owner for owner in self._waiting if owner not in self._at_work), None)


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


def _draining() -> UnavailableError:
    return UnavailableError("the server is shutting down; connect to another one", reason="DRAINING")
