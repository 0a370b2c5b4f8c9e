"""Sweeps: costed before anything is computed, then one pass after the other, each in its turn."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from transparent_llm.analysis.sweep_cells import Sweep, SweepPart, SweepPlan
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.wire import sweeps as wire_sweeps
from transparent_llm.wire._gen import sweeps_pb2
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.models.sweeping.swept_run import SweptRun
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.edited_runs import Sources
from transparent_llm_server.rpc.passes import Passes
from transparent_llm_server.scheduling.quotas import Quotas
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.vector_store import VectorStore


class Sweeps:
    """Of a server."""

    def __init__(
        self,
        passes: Passes,
        admission: Admission,
        quotas: Quotas,
        runs: RunStore[CompletedRun],
        vectors: VectorStore,
    ) -> None:
        self._passes, self._admission = passes, admission
        self._quotas, self._runs, self._vectors = quotas, runs, vectors

    def plan(self, run: CompletedRun, request: sweeps_pb2.SweepRequest, caller: Caller) -> sweeps_pb2.SweepPlan:
        """What a sweep would take. Raises: as `stream`, but for what is too much."""
        sweep = self._read(request, caller)
        swept = self._passes.computed(run.model, partial(_begun, run, sweep), 1, caller)
        positions, most = sweep.positions(tuple(run.tokens.shape)), self._admission.max_sweep_positions
        return wire_sweeps.plan_to_wire(SweepPlan(positions, most, swept.cells_at_once))

    def stream(self, run: CompletedRun, request: sweeps_pb2.SweepRequest, caller: Caller) -> Iterator[bytes]:
        """The messages of an answer.

        Raises:
            InvalidRequestError: what makes no sense.
            NotFoundError: RUN_NOT_FOUND, with the id of a run that it takes something from.
            IndexOutOfRangeError: what it names is not there.
            NotSupportedError: the model's runs cannot be edited, or not there.
            TooLargeError: too many cells, metrics, edits or positions.
            BusyError: too many runs wait, or QUOTA_EXCEEDED.
        """
        sweep = self._read(request, caller)
        positions = sweep.positions(tuple(run.tokens.shape))
        self._admission.require_sweep(positions, len(sweep.cells))
        with self._quotas.counted(caller.owner, "positions", positions) as took:
            swept = self._passes.computed(run.model, partial(_begun, run, sweep), 1, caller)
            baselines = self._passes.computed(run.model, swept.baselines, 1, caller)
            for n, cells in enumerate(swept.passes()):
                cost = len(cells) * swept.positions_of_cell
                values = self._passes.computed(run.model, partial(swept.measured, cells), cost, caller)
                took(cost)
                self._passes.count(cost)
                yield wire_sweeps.part_to_wire(SweepPart(None if n else baselines, cells, values))

    def _read(self, request: sweeps_pb2.SweepRequest, caller: Caller) -> Sweep:
        """What it takes from are runs of the same owner."""
        return wire_sweeps.from_wire(request, Sources(self._runs, self._vectors, caller.owner))


def _begun(run: CompletedRun, sweep: Sweep) -> SweptRun:
    begin = getattr(run.llm, "swept", None)
    if begin is None:
        raise NotSupportedError(f"runs of {type(run.llm).__name__} cannot be edited")
    swept: SweptRun = begin(sweep)
    return swept


def require_of_plan(request: sweeps_pb2.SweepRequest, run_id: str) -> None:
    """Refuse a plan of a sweep of another run.

    Raises:
        InvalidRequestError: it is.
    """
    if request.run_id not in ("", run_id):
        raise InvalidRequestError("the sweep of a plan names another run; one plan is of one run")
