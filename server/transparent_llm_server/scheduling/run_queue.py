"""Runs on their way to the model: equal ones are computed once, and several can share a forward pass."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext, suppress
from functools import partial
from operator import itemgetter

from transparent_llm.errors import BusyError, NotFoundError, TransparentLlmError
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.queued_run import QueuedRun
from transparent_llm_server.scheduling.quotas import Quotas
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.sharing import Sharing
from transparent_llm_server.scheduling.twins import Twins


class RunQueue:
    """Between the calls and the model thread. Within `hold` a model stays loaded, or it is gone: `NotFoundError`."""

    def __init__(
        self,
        engine: Engine,
        runs: RunStore[CompletedRun],
        hold: Callable[[ServedModel], AbstractContextManager[None]] = lambda _: nullcontext(),
        quotas: Quotas | None = None,
    ) -> None:
        self._quotas = quotas or Quotas(time.monotonic)
        self._engine, self._work_events = engine, engine.work_events
        self._runs = runs
        self._hold = hold
        self._changed = threading.Condition()
        self.computed_positions = 0
        """Of all runs and sweeps so far, padding included."""

        self._twins = Twins(runs)
        self._waiting: dict[str, QueuedRun] = {}
        self._computed: dict[str, QueuedRun] = {}

    def count(self, positions: int) -> None:
        """So many more were computed, by what is no run."""
        with self._changed:
            self.computed_positions += positions

    def submit(
        self,
        model: ServedModel,
        prepared: PreparedRun,
        run_id: str,
        sharing: Sharing,
        owner: str = "",
        flow: str | None = None,
    ) -> Future[CompletedRun]:
        """A future of the run, which is then in the store too. Cancel it to wait no longer. Flows (owners, unless told
        otherwise) have the model in turn, by positions.

        Raises:
            BusyError: the queue is full, or QUOTA_EXCEEDED: the owner has had too much. Also by the future: another
                flow's run takes its place.
            TooLargeError: an owner may never have so much at once.
            UnavailableError: DRAINING, at once or by the future: the engine is closed.
        """
        flow = owner if flow is None else flow
        waiter: Future[CompletedRun] = Future()
        job: Future[None] | None = None
        with self._changed:
            entry = self._waiting.get(run_id) or self._computed.get(run_id)
            if entry is None and (run := self._runs.find(run_id, owner)) is not None:
                waiter.set_result(run)
                return waiter
            if entry is None:
                entry = QueuedRun(model, prepared, run_id, owner, self._work_events.begin_wait("run"))
                job = self._begun(entry, flow, sharing)
            elif run_id in self._waiting and flow not in entry.jobs:
                with suppress(BusyError):  # then it waits for the other's turn
                    job = self._queued(entry, flow, sharing)
            entry.waiters.append(waiter)
        waiter.add_done_callback(lambda future: self._left(entry, future) if future.cancelled() else None)
        if job is not None:
            job.add_done_callback(partial(self._refused, run_id))
        return waiter

    def before(self, run_id: str) -> int:
        """How many runs have their turn before this one, as it is now; 0 where it does not wait."""
        with self._changed:
            entry = self._waiting.get(run_id)
            return 0 if entry is None else min(map(self._engine.runs_before, entry.jobs.values()), default=0)

    def waiting(self) -> Counter[str]:
        """How many runs of each owner wait or are computed."""
        with self._changed:
            return Counter(entry.owner for entry in (*self._waiting.values(), *self._computed.values()))

    def _begun(self, entry: QueuedRun, flow: str, sharing: Sharing) -> Future[None]:
        """Its owner is charged with it; what then does not come to be computed is given back."""
        self._quotas.take(entry.owner, "positions", entry.cost)
        if entry.call is not None:
            entry.call.positions = entry.cost
        try:
            entry.sources.callback(self._runs.hold(entry.prepared.sources, entry.owner))
            job = self._queued(entry, flow, sharing)
        except TransparentLlmError:
            self._give_back(entry)
            raise
        self._waiting[entry.run_id] = entry
        self._changed.notify_all()
        return job

    def _give_back(self, entry: QueuedRun) -> None:
        entry.sources.close()
        self._quotas.give_back(entry.owner, "positions", entry.cost)
        if entry.call is not None:
            entry.call.positions = 0

    def _queued(self, entry: QueuedRun, flow: str, sharing: Sharing) -> Future[None]:
        entry.jobs[flow] = Future()  # it has a turn already: the only other one may be given up for this one
        try:
            job = self._engine.submit(partial(self._turn, entry.run_id, sharing), flow, entry.cost)
        except TransparentLlmError:
            del entry.jobs[flow]
            raise
        entry.jobs[flow] = job
        return job

    def _refused(self, run_id: str, job: Future[None]) -> None:
        """The engine gives this run's turn up, or ends in the midst of it: no answer will come from there."""
        if job.cancelled() or (error := job.exception()) is None:
            return
        with self._changed:
            waiting = self._waiting.get(run_id)
            if waiting is not None and not all(other.done() for other in waiting.jobs.values()):
                return  # it has a turn of another flow, and may be at it
            refused = [self._waiting.pop(run_id)] if waiting is not None else list(self._computed.values())
            if waiting is not None:
                self._give_back(waiting)
        for entry in refused:
            self._fail(entry, error)

    def _left(self, entry: QueuedRun, waiter: Future[CompletedRun]) -> None:
        """One waits no longer. If nobody does, what has not begun need not begin."""
        with self._changed:
            entry.waiters = [other for other in entry.waiters if other is not waiter]
            if entry.is_abandoned:
                if self._waiting.get(entry.run_id) is entry:
                    del self._waiting[entry.run_id]
                    self._give_back(entry)
                    self._changed.notify_all()
                _cancel(entry)

    def _turn(self, run_id: str, sharing: Sharing) -> None:
        """On the model thread: compute this run, and those that can share its forward pass."""
        group = self._take(run_id, sharing)
        try:
            for entry in group:
                self._work_events.end_wait(entry.wait)
            self._compute_held(group)
        finally:
            with self._changed:
                for entry in group:
                    self._computed.pop(entry.run_id, None)
            for entry in group:
                entry.sources.close()

    def _take(self, run_id: str, sharing: Sharing) -> list[QueuedRun]:
        deadline = time.monotonic() + sharing.window_s
        with self._changed:
            first = self._waiting.get(run_id)
            if first is None:  # it shared an earlier forward pass
                return []
            may_grow = first.prepared.n_tokens < sharing.positions and first.model.shares_runs
            group = self._fitting(first, sharing)
            while group and may_grow and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)
                group = self._fitting(first, sharing)
            for entry in group:
                self._computed[entry.run_id] = self._waiting.pop(entry.run_id)
                if not any(job.running() for job in entry.jobs.values()):  # it has no turn of its own
                    self._engine.charge(entry.flow, entry.cost)
                _cancel(entry)  # it no longer waits, nor takes places in the queue
            return group

    def _fitting(self, first: QueuedRun, sharing: Sharing) -> list[QueuedRun]:
        """The first and, flows in turn, those that fit into one batch with it."""
        if self._waiting.get(first.run_id) is not first:  # its caller left during the window, and may have come back
            return []
        group, rows, longest = [first], first.prepared.n_rows, first.prepared.longest
        for entry in _in_turn(first, self._waiting.values()):
            if entry.model is not first.model or not first.model.shares_runs:
                continue
            more, wider = rows + entry.prepared.n_rows, max(longest, entry.prepared.longest)
            fits = more * wider <= sharing.positions
            if fits and first.model.may_share(first.prepared, entry.prepared):
                group.append(entry)
                rows, longest = more, wider
        return group

    def _compute_held(self, group: Sequence[QueuedRun]) -> None:
        """A run of a model that is being unloaded would bring it back into memory; only one that all left can be so."""
        if not group:
            return
        try:
            with self._hold(group[0].model):
                self._compute(group)
        except NotFoundError as error:
            for entry in group:
                self._fail(entry, error)

    def _compute(self, group: Sequence[QueuedRun]) -> None:
        results: list[CompletedRun] | None = None
        try:
            with cancellable(lambda: self._is_wanted(group)):
                results = self._execute(group)
            if len(results) != len(group):
                raise RuntimeError(f"{len(results)} results for {len(group)} runs")
        except AbandonedError:
            group = [entry for entry in group if not self._drop_if_abandoned(entry)]
        except BaseException as error:
            if len(group) == 1:
                self._fail(group[0], error)
                return
        if results is None:  # what failed together may do alone, now that the error and what it held are gone
            for entry in group:
                self._compute([entry])
            return
        for entry, run in zip(group, results, strict=True):
            entry.sources.close()
            try:
                stored = self._twins.sharing(entry.model, entry.prepared, entry.owner, run)
                self._runs.put(entry.run_id, stored, entry.owner)
            except Exception as error:
                self._fail(entry, error)
            else:
                self._give(entry, stored)

    def _execute(self, group: Sequence[QueuedRun]) -> list[CompletedRun]:
        model, waits = group[0].model, [entry.wait for entry in group]
        with self._work_events.forward(model.name, model.description.device, waits):
            results = model.execute([entry.prepared for entry in group])
        self.count(sum(entry.prepared.n_tokens for entry in group))
        return results

    def _is_wanted(self, group: Sequence[QueuedRun]) -> bool:
        with self._changed:
            return any(not entry.is_abandoned for entry in group)

    def _drop_if_abandoned(self, entry: QueuedRun) -> bool:
        """Unless somebody has come at the last moment."""
        with self._changed:
            if entry.is_abandoned:
                self._computed.pop(entry.run_id, None)
            return entry.is_abandoned

    def _give(self, entry: QueuedRun, run: CompletedRun) -> None:
        for waiter in self._answered(entry):
            waiter.set_result(run)

    def _fail(self, entry: QueuedRun, error: BaseException) -> None:
        for waiter in self._answered(entry):
            waiter.set_exception(self._engine.translate(error))

    def _answered(self, entry: QueuedRun) -> list[Future[CompletedRun]]:
        """Those who still wait; from here on, whoever comes finds the run in the store or asks again."""
        with self._changed:
            self._computed.pop(entry.run_id, None)
            waiters, entry.waiters = entry.waiters, []
        return [waiter for waiter in waiters if waiter.set_running_or_notify_cancel()]


def _cancel(entry: QueuedRun) -> None:
    """Its turns that have not begun."""
    for job in entry.jobs.values():
        job.cancel()


def _in_turn(first: QueuedRun, entries: Iterable[QueuedRun]) -> list[QueuedRun]:
    """All but the first: of each flow in order of arrival, and next is whose have had fewest positions until then."""
    had, ranked = Counter({first.flow: first.cost}), []
    for entry in entries:
        if entry is not first:
            ranked.append((had[entry.flow], entry))
            had[entry.flow] += entry.cost
    return [entry for _, entry in sorted(ranked, key=itemgetter(0))]
