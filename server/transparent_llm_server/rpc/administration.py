"""What administrators see of a server, and can have it do: the RPCs of admin.proto."""

from __future__ import annotations

from collections.abc import Callable

import grpc

from transparent_llm.wire._gen import admin_pb2
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.scheduling.quotas import Amounts, Quotas
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore, Stored

_Context = grpc.ServicerContext
_MOST_RUNS = 1000
"""That are listed at once."""


class AdminServicer:
    """Answers them; `drain` is told to begin the end of the server. Who may call has been asked before."""

    def __init__(
        self, runs: RunStore[CompletedRun], queue: RunQueue, quotas: Quotas, drain: Callable[[], None]
    ) -> None:
        self._runs, self._queue, self._quotas, self._drain = runs, queue, quotas, drain

    def ListRuns(self, request: admin_pb2.ListRunsRequest, context: _Context) -> admin_pb2.ListRunsResponse:
        """Runs that are kept, those that were used last first."""
        stored = [run for run in self._runs.stored() if request.owner in ("", run.owner)]
        listed = stored[: min(request.limit or _MOST_RUNS, _MOST_RUNS)]
        return admin_pb2.ListRunsResponse(
            runs=[_run(run) for run in listed], total=len(stored), total_bytes=sum(run.nbytes for run in stored)
        )

    def ListOwners(self, request: admin_pb2.ListOwnersRequest, context: _Context) -> admin_pb2.ListOwnersResponse:
        """Owners with runs kept or waiting, or who took something within the last hour."""
        waiting, taken = self._queue.waiting(), self._quotas.taken()
        owners = {*waiting, *taken, *(run.owner for run in self._runs.stored())}
        return admin_pb2.ListOwnersResponse(
            owners=[self._owner(owner, waiting[owner], taken.get(owner, {})) for owner in sorted(owners)]
        )

    def _owner(self, owner: str, waiting: int, taken: Amounts) -> admin_pb2.Owner:
        stored_runs, nbytes = self._runs.usage(owner)
        usage = [
            admin_pb2.Usage(quota=f"{which[0]}_per_{which[1]}", used=used, allowed=self._quotas.allowed.get(which))
            for which, used in taken.items()
        ]
        return admin_pb2.Owner(
            owner=owner, waiting_runs=waiting, stored_runs=stored_runs, stored_run_bytes=nbytes, usage=usage
        )

    def Drain(self, request: admin_pb2.DrainRequest, context: _Context) -> admin_pb2.DrainResponse:
        """Have the server end."""
        self._drain()
        return admin_pb2.DrainResponse()


def _run(stored: Stored[CompletedRun]) -> admin_pb2.StoredRun:
    return admin_pb2.StoredRun(
        run_id=stored.run_id,
        owner=stored.owner,
        model=stored.run.model.name,
        bytes=stored.nbytes,
        age_seconds=stored.age_s,
        idle_seconds=stored.idle_s,
    )
