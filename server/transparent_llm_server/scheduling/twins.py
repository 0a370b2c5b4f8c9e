"""Runs of the same input, one of them with edits: what these leave as it is lies in memory once."""

from __future__ import annotations

from weakref import WeakValueDictionary

from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel
from transparent_llm_server.scheduling.run_store import RunStore


class Twins:
    """Of a store. For the model thread."""

    def __init__(self, runs: RunStore[CompletedRun]) -> None:
        self._runs = runs
        self._edited: WeakValueDictionary[str, CompletedRun] = WeakValueDictionary()
        """By the id of the run without edits the last one with some, as long as it is there."""

    def sharing(self, model: ServedModel, prepared: PreparedRun, owner: str, run: CompletedRun) -> CompletedRun:
        """A run that is about to be stored; of the two, whichever comes second has tensors of the first."""
        if not prepared.edits:
            other = self._edited.get(model.run_id(prepared, owner))
            return run if other is None else model.sharing(run, other)
        unedited = model.unedited_run_id(prepared, owner)
        other = self._runs.peek(unedited, owner)
        shared = run if other is None else model.sharing(run, other)
        self._edited[unedited] = shared
        return shared
