"""Passes of a model that no run is kept of: each in its turn, among the runs that wait."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from transparent_llm_server.events import current
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.run_queue import RunQueue

_Result = TypeVar("_Result")


class Passes:
    """Of a server. They wait as runs do: flows have turns, by positions."""

    def __init__(self, engine: Engine, queue: RunQueue) -> None:
        self._engine, self._queue = engine, queue

    def computed(self, model: ServedModel, work: Callable[[], _Result], cost: int, caller: Caller) -> _Result:
        """On the model thread, when this flow has its turn, and as long as the client is there."""
        return caller.result_of(self.begun(model, work, cost, caller))

    def begun(self, model: ServedModel, work: Callable[[], _Result], cost: int, caller: Caller) -> Future[_Result]:
        """As `computed`, but not waited for."""
        caller.require_there()
        wait = self._engine.work_events.begin_wait("run")

        def compute() -> _Result:
            self._engine.work_events.end_wait(wait)
            with self._engine.work_events.forward(model.name, model.description.device, [wait]):
                return caller.while_there(work)

        return self._engine.submit(compute, caller.flow, cost)

    def count(self, cost: int) -> None:
        """So many positions were computed for the call that is under way."""
        self._queue.count(cost)
        if (call := current.get()) is not None:
            call.positions += cost
