"""The part of the remote object that sweeps: cells go to the server, numbers come back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from transparent_llm.analysis.sweep_cells import Sweep, Sweepable, SweepPart, SweepPlan
from transparent_llm.client.arrivals import arrivals
from transparent_llm.client.connected import Connected, run_of
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InternalError
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.sources import kept_in, kept_in_vector, sources_of, sources_of_vector
from transparent_llm.wire import sweeps
from transparent_llm.wire.requests import Request

_CELLS_OF_CALL = 1024
"""So that no call of many cells runs into its deadline that one of fewer would not."""


class RemoteSweeping(Sweepable, Connected):
    """Sweeps of the current run of one object: see `RemoteTransparentLlm`."""

    def sweep(self, sweep: Sweep) -> Iterator[SweepPart]:
        """What each cell gives, as it comes: a run that was lost is run again, and asked for what has not come."""
        self._shared.models.require("sweep")
        sources, kept = _runs_of(sweep), _kept_of(sweep)
        waiting = dict.fromkeys(range(len(sweep.cells)))

        def fetch(put: Callable[[SweepPart], None], interruptible: Interruptible) -> None:
            self._runs.read(lambda run: self._swept(run, sweep, sources, waiting, put, interruptible), sources, kept)

        is_first = True
        for part in arrivals(fetch):
            yield part if is_first else part._replace(baselines=None)
            is_first = False

    def plan_sweep(self, sweep: Sweep) -> SweepPlan:
        """What a sweep would take of the server, which computes nothing of it."""
        self._shared.models.require("sweep")
        sources, kept = _runs_of(sweep), _kept_of(sweep)

        def ask(run: CurrentRun) -> SweepPlan:
            cells = range(len(sweep.cells))
            request = sweeps.to_wire(sweep, cells, run.result.run_id, lambda llm: sources[llm].result.run_id)
            return self._calls.unary("Plan", sweeps.plan_request(request), sweeps.plan_from_wire, run.key)

        return self._runs.read(ask, sources, kept)

    def _swept(
        self,
        run: CurrentRun,
        sweep: Sweep,
        sources: Mapping[TransparentLlm, CurrentRun],
        waiting: dict[int, None],
        put: Callable[[SweepPart], None],
        interruptible: Interruptible,
    ) -> None:
        """All cells that have not come yet."""
        n_rows = len(sweep.rows) or run.shape[0]
        limits = self._shared.models.limits
        at_once = min(_CELLS_OF_CALL, limits.max_sweep_cells or _CELLS_OF_CALL)
        if limits.max_sweep_positions:
            at_once = min(at_once, max(1, limits.max_sweep_positions // (n_rows * run.shape[1])))
        asking = _Asking(run, sweep, sources, waiting, put, n_rows)
        while waiting:
            asking.cells = list(waiting)[:at_once]
            self._calls.messages("Sweep", asking.request, asking.take, run.key, interruptible)
            if not waiting.keys().isdisjoint(asking.cells):
                raise InternalError(f"{self._config.target} ended a sweep before all of its cells had come")


@dataclass
class _Asking:
    """One call for some cells, made again for those that have not come where it breaks."""

    run: CurrentRun
    sweep: Sweep
    sources: Mapping[TransparentLlm, CurrentRun]
    waiting: dict[int, None]
    put: Callable[[SweepPart], None]
    n_rows: int
    cells: list[int] = field(default_factory=list)
    is_first: bool = True
    """Whether the next message is the first of the answer."""

    def request(self) -> Request:
        """For the cells that have not come."""
        self.cells = [cell for cell in self.cells if cell in self.waiting]
        self.is_first = True
        run_id = self.run.result.run_id
        return sweeps.to_wire(self.sweep, self.cells, run_id, lambda llm: self.sources[llm].result.run_id)

    def take(self, data: bytes) -> None:
        """One message."""
        left = [n for n, cell in enumerate(self.cells) if cell in self.waiting]
        n_metrics = len(self.sweep.metrics)
        part = sweeps.part_from_wire(data, left, n_metrics, self.n_rows, is_first=self.is_first)
        self.is_first = False
        came = tuple(self.cells[n] for n in part.cells)
        for cell in came:
            del self.waiting[cell]
        self.put(part._replace(cells=came))


def _runs_of(sweep: Sweep) -> Mapping[TransparentLlm, CurrentRun]:
    """What it takes from, as it is now."""
    return {source: run_of(source, "the source of a sweep") for source in _sources(sweep)}  # type: ignore[misc]  # remote objects are of the contract


def _sources(sweep: Sweep) -> Iterator[object]:
    yield from sources_of([*sweep.edits, *sweep.templates])
    for metric in sweep.metrics:
        if metric.run is not None:
            yield metric.run
        if metric.direction is not None:
            yield from sources_of_vector(metric.direction)


def _kept_of(sweep: Sweep) -> dict[str, KeptVector]:
    """Kept vectors that it uses, by digest."""
    found = kept_in([*sweep.edits, *sweep.templates])
    for metric in sweep.metrics:
        if metric.direction is not None:
            found |= kept_in_vector(metric.direction)
    return found
