"""One model thread: all heavy work on models happens here, one piece at a time, short pieces first."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from typing import Any, TypeVar

from transparent_llm.errors import BusyError, UnavailableError
from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm_server.events import Wait, WorkEvents
from transparent_llm_server.lifecycle import draining
from transparent_llm_server.models.forward.cancellation import cancellable
from transparent_llm_server.scheduling.device_errors import device_is_lost, is_out_of_memory, lost, out_of_memory
from transparent_llm_server.scheduling.fair_queue import FairQueue
from transparent_llm_server.scheduling.reads import Kind, Reads

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")
_Job = tuple[Callable[[], Any], "Future[Any]"]

DEVICE_LOST, THREAD_DIED, THREAD_HUNG = 70, 71, 72
"""Exit codes of a process that can no longer compute, for a supervisor that restarts it."""

_READS_IN_A_ROW = 8
"""Reads that overtake a waiting run, then it has its turn, however many more there are; and that one layer of a run may
be followed by."""


class Engine:
    """Runs submitted work, reads before runs; of runs those of whoever has had least of the model, and of reads one of
    each flow in turn. Reads that may interrupt wait for the end of a layer, not of a run, and short ones for a piece of
    a long one. A flow is whom work is done for: an owner, or a connection where nobody says who they are. Cancel a
    future to drop work that has not begun.

    `on_failure` is told when nothing can be computed any more: with DEVICE_LOST, or THREAD_DIED. Whoever sees it
    busy for too long calls that THREAD_HUNG.
    """

    def __init__(
        self,
        queue_length: int,
        retry_after_s: float,
        on_failure: Callable[[int], None] = lambda _: None,
        work_events: WorkEvents | None = None,
    ) -> None:
        self._on_failure = on_failure
        self.work_events = work_events or WorkEvents()
        """Is told how long reads wait; those who queue runs here tell it of theirs."""

        self._queue_length = queue_length
        self._retry_after_s = retry_after_s
        self._runs: FairQueue[_Job] = FairQueue()
        self._reads: Reads[_Job] = Reads()
        self._reads_in_a_row = 0
        self._began: float | None = None
        self._may_be_interrupted = self._run_is_under_way = False
        self._under_way: list[Future[Any]] = []
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._live, name="model", daemon=True)
        self._thread.start()

    @property
    def queued_runs(self) -> int:
        """Runs that wait for their turn."""
        with self._changed:
            return sum(not future.cancelled() for _, future in self._runs)

    @property
    def waiting_flows(self) -> int:
        """Of how many flows there are runs that wait."""
        with self._changed:
            self._runs.drop(_is_cancelled)
            return self._runs.n_flows

    @property
    def busy_s(self) -> float:
        """How long the model thread has been at the work that it does now; 0 if it does none."""
        began = self._began
        return 0.0 if began is None else time.monotonic() - began

    def submit(self, work: Callable[[], _Result], flow: str = "", cost: int = 1) -> Future[_Result]:
        """Put a run into the queue. In a full one, the flow that has most waiting makes room for others: its last run
        is told BUSY.

        Raises:
            BusyError: the queue is full, and no other flow has more in it.
            UnavailableError: the engine is closed.
        """
        future: Future[_Result] = Future()
        with self._changed:
            self._require_open()
            given_up = self._make_room(flow)
            self._runs.put(flow, (work, future), cost)
            self._changed.notify()
        if given_up is not None and given_up[1].set_running_or_notify_cancel():
            given_up[1].set_exception(self._busy())
        return future

    def runs_before(self, future: Future[Any]) -> int:
        """How many runs have their turn before one that waits, as it is now, the one that is computed counted."""
        with self._changed:
            self._runs.drop(_is_cancelled)
            job = next((job for job in self._runs if job[1] is future), None)
            return 0 if job is None else self._runs.before(job) + self._run_is_under_way

    def charge(self, flow: str, cost: int) -> None:
        """A run of this flow was computed along with another one's."""
        with self._changed:
            self._runs.charge(flow, cost)

    def _make_room(self, flow: str) -> _Job | None:
        """The run that is given up, if one has to be."""
        if len(self._runs) >= self._queue_length:
            self._runs.drop(_is_cancelled)
        if len(self._runs) < self._queue_length:
            return None
        given_up = self._runs.make_room(flow)
        if given_up is None:
            raise self._busy()
        return given_up

    def submit_read(self, work: Callable[[], _Result], flow: str = "", kind: Kind = Kind.PATIENT) -> Future[_Result]:
        """Put work before all runs that wait, and, by its kind, between two layers of the one that is computed. As many
        can wait as there are calls; flows take turns.

        Raises:
            UnavailableError: the engine is closed.
        """
        future: Future[_Result] = Future()
        wait = self.work_events.begin_wait("read")
        with self._changed:
            self._require_open()
            job = (work if wait is None else partial(self._after, wait, work), future)
            self._reads.put(flow, job, kind)
            self._changed.notify()
        return future

    def _after(self, wait: Wait, work: Callable[[], _Result]) -> _Result:
        self.work_events.end_wait(wait)
        return work()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within this block the model thread does nothing; it begins when what is under way has ended.

        Raises:
            UnavailableError: the engine is closed.
        """
        begun, ended = threading.Event(), threading.Event()

        def wait() -> None:
            self._began = None  # what others do meanwhile is no work of the model's
            begun.set()
            ended.wait()

        turn = self.submit_read(wait)
        turn.add_done_callback(lambda _: begun.set())
        begun.wait()
        if turn.done():  # refused, as the thread died
            turn.result()
        try:
            yield
        finally:
            ended.set()

    def run_inline(self, work: Callable[[], _Result]) -> _Result:
        """Do a little work on the caller's own thread, with the same errors.

        Raises:
            CapacityError: the device has no memory left.
            UnavailableError: the engine is closed.
        """
        self._require_open()
        try:
            return _with_standard_numerics(work)
        except BaseException as error:
            told = self.translate(error)
            if told is error:
                raise
            raise told from error

    def translate(self, error: BaseException) -> BaseException:
        """What a caller is told of an error: the words of a device that is out of memory become `CapacityError`."""
        if is_out_of_memory(error):
            return out_of_memory(error, self._retry_after_s)
        if not device_is_lost(error):
            return error
        log.critical("the device is lost: %s", error)
        self._on_failure(DEVICE_LOST)
        return lost()

    def stop(self) -> None:
        """Refuse what waits, and what comes from now on; what is under way stops at the next place where it can."""
        self._refuse_all(draining)

    def close(self, within_s: float | None = None) -> bool:
        """`stop`, and wait so long for the thread to end; whether it did.

        One that does not is left alone, and whoever waits for what it is at is refused.
        """
        self.stop()
        self._thread.join(within_s)
        for under_way in list(self._under_way):
            with suppress(InvalidStateError):  # it came to its end after all
                under_way.set_exception(draining())
        return not self._thread.is_alive()

    def _goes_on(self) -> bool:
        """Of what is under way, which asks at every layer of a run or piece of a read: reads may be done there, too."""
        self._require_open()
        if self._may_be_interrupted:
            self._interrupt()
        return True

    def _interrupt(self) -> None:
        """Do some reads, as if nothing else were under way."""
        since, self._may_be_interrupted = time.monotonic(), False
        for _ in range(_READS_IN_A_ROW):
            with self._changed:
                job = self._reads.take_within(run=self._run_is_under_way)
            if job is None:
                break
            Context().run(self._do, *job)  # without what asks whether the run is still wanted
            del job
        self._may_be_interrupted = True
        if self._began is not None:
            self._began += time.monotonic() - since

    def _require_open(self) -> None:
        if self._closing:
            raise draining()

    def _busy(self) -> BusyError:
        return BusyError(
            f"{self._queue_length} calls are already waiting for the model; try again in {self._retry_after_s:g} s",
            metadata={"queue_length": str(self._queue_length)},
            retry_after_s=self._retry_after_s,
        )

    def _live(self) -> None:
        try:
            self._work()
        except BaseException as error:  # nothing of the work's own, which `_finish` catches
            log.critical("the model thread died", exc_info=error)
            self._refuse_all(lost)
            self._on_failure(THREAD_DIED)

    def _refuse_all(self, error: Callable[[], UnavailableError]) -> None:
        with self._changed:
            self._closing = True
            left = [*self._reads, *self._runs]
            self._reads, self._runs = Reads(), FairQueue()
            self._changed.notify()
        for _, future in left:
            if future.set_running_or_notify_cancel():
                future.set_exception(error())

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._do(*job)
            self._may_be_interrupted = False
            del job  # a waiting thread must not keep the last result alive

    def _do(self, work: Callable[[], Any], future: Future[Any]) -> None:
        if not future.set_running_or_notify_cancel():
            return
        around, self._began = self._began, time.monotonic()
        self._under_way.append(future)
        del future  # as in `_finish`
        self._finish(work, self._under_way[-1])
        self._under_way.pop()
        self._began = around

    def _next(self) -> _Job | None:
        with self._changed:
            self._run_is_under_way = False
            self._changed.wait_for(self._has_work_or_closes)
            if self._reads and not (self._runs and self._reads_in_a_row >= _READS_IN_A_ROW):
                self._reads_in_a_row += 1
                job, self._may_be_interrupted = self._reads.take()
                return job
            self._reads_in_a_row = 0
            self._may_be_interrupted = self._run_is_under_way = bool(self._runs)
            return self._runs.take() if self._runs else None

    def _has_work_or_closes(self) -> bool:
        self._runs.drop(_is_cancelled)  # which is nobody's turn
        return bool(self._runs or self._reads or self._closing)

    def _finish(self, work: Callable[[], Any], future: Future[Any]) -> None:
        try:
            with cancellable(self._goes_on):
                result = _with_standard_numerics(work)
        except BaseException as error:
            with suppress(InvalidStateError):  # `close` waited no longer for it
                future.set_exception(self.translate(error))
        else:
            with suppress(InvalidStateError):
                future.set_result(result)
            del result
        finally:
            del future, work  # an exception knows this frame, and the future the exception: a circle that holds tensors


def _is_cancelled(job: _Job) -> bool:
    return job[1].cancelled()


def _with_standard_numerics(work: Callable[[], _Result]) -> _Result:
    with standard_numerics():
        return work()
