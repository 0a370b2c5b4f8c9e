"""Prepared runs on their way: into the queue, and, for the call that brought them, out of it."""

from __future__ import annotations

import logging

from transparent_llm_server.config.server import DEFAULT_SHARED_POSITIONS, ServerConfig
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.sharing import Sharing

log = logging.getLogger(__name__)


class PreparedRuns:
    """Of a server."""

    def __init__(self, config: ServerConfig, queue: RunQueue, runs: RunStore[CompletedRun]) -> None:
        self._config, self._queue, self._runs = config, queue, runs

    def completed(
        self, model: ServedModel, prepared: PreparedRun, caller: Caller, *, tells_place: bool
    ) -> tuple[str, CompletedRun]:
        """The id of a run, and the run, which is then in the store too. `tells_place`: its call is told how many runs
        come before it, if it asks; one that has answers already cannot be.

        Raises:
            TooLargeError: it can never be stored, or the owner may never have so much at once.
            BusyError: too many runs wait, or QUOTA_EXCEEDED.
            CancelledError, DeadlineError: nobody waits for it any more.
        """
        self._runs.require_room(model.description.run_bytes(prepared.n_rows, prepared.longest))
        run_id = model.run_id(prepared, caller.owner)
        if self._config.log_prompts:
            given = prepared.run_input
            log.info("run %s of %s: %r", run_id, caller.owner, given.sentences or given.token_ids)
        waiting = self._queue.submit(model, prepared, run_id, self._sharing(model), caller.owner, caller.flow)
        if tells_place and caller.wants_its_place:
            caller.tell_its_place(self._queue.before(run_id))
        return run_id, caller.result_of(waiting)

    def _sharing(self, model: ServedModel) -> Sharing:
        positions = self._config.shared_positions
        if positions is None:
            positions = 0 if "cuda" not in model.description.device else DEFAULT_SHARED_POSITIONS
        return Sharing(positions, self._config.share_window_s)
