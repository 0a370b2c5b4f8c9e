"""Threads that are there before they are needed."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from transparent_llm.errors import InvalidRequestError

_STARTED_WITHIN_S = 60.0
_Given = ParamSpec("_Given")
_Result = TypeVar("_Result")
_Work = tuple["Future[object]", Callable[[], object]]


class _Seat:
    """Where an idle thread waits for work."""

    def __init__(self) -> None:
        self._is_called = threading.Lock()
        self._is_called.acquire()
        self._work: _Work | None = None

    def give(self, work: _Work | None) -> None:
        """Wake the thread; None ends it."""
        self._work = work
        self._is_called.release()

    def wait(self) -> _Work | None:
        """What is given."""
        self._is_called.acquire()
        work, self._work = self._work, None
        return work


class ReadyThreads(ThreadPoolExecutor):  # which gRPC wants
    """A pool of `count` threads, all of which run before the first work comes. Work goes to the idle thread that was
    busy last: what that one needs is still in a core's caches, where in the pool of Python all have their turn.

    gRPC hands calls to its pool on the one thread that serves: if the pool had to start a thread there and could not,
    that one would end, and with it all service.

    Raises:
        InvalidRequestError: this process may not start so many.
    """

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count)
        self._idle: list[_Seat] = []  # the last one was busy last
        self._waiting: deque[_Work] = deque()
        self._changing = threading.Lock()
        self._has_ended = False
        self._own = [threading.Thread(target=self._live, name=f"{name}_{i}", daemon=True) for i in range(count)]
        n_started = 0
        try:
            for thread in self._own:
                thread.start()
                n_started += 1
        except RuntimeError as error:
            self._own = self._own[:n_started]
            self.shutdown(wait=False)
            raise InvalidRequestError(
                f"only {n_started} of {count} threads named {name!r} could be started ({error}): raise the limit of "
                "this process (ulimit -u, or the pids of its container), or lower --max-streams"
            ) from None

    def submit(self, fn: Callable[_Given, _Result], /, *args: _Given.args, **kwargs: _Given.kwargs) -> Future[_Result]:
        """Have an idle thread do it, or the next that is; in order.

        Raises:
            RuntimeError: after `shutdown`.
        """
        future: Future[_Result] = Future()
        work: _Work = (future, partial(fn, *args, **kwargs))  # type: ignore[assignment]  # of any result
        with self._changing:
            if self._has_ended:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._idle:
                self._idle.pop().give(work)
            else:
                self._waiting.append(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more; threads end once nothing waits."""
        with self._changing:
            self._has_ended = True
            dropped = list(self._waiting) if cancel_futures else []
            if cancel_futures:
                self._waiting.clear()
            while self._idle:
                self._idle.pop().give(None)
        for future, _ in dropped:
            future.cancel()
        for thread in self._own if wait else ():
            thread.join()

    def _live(self) -> None:
        seat = _Seat()
        while (work := self._next(seat)) is not None:
            _do(*work)
            del work  # its arguments are no longer anybody's

    def _next(self, seat: _Seat) -> _Work | None:
        with self._changing:
            if self._waiting:
                return self._waiting.popleft()
            if self._has_ended:
                return None
            self._idle.append(seat)
        return seat.wait()


def _do(future: Future[object], work: Callable[[], object]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except BaseException as error:
        future.set_exception(error)
        del future  # which has an exception that knows this frame
    else:
        future.set_result(result)
