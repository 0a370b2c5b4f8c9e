"""The runs of one client object: made, read, and made again where the server lost one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar
from weakref import WeakKeyDictionary

from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.models import Models
from transparent_llm.client.reader import RunReader
from transparent_llm.client.reruns import MOST_RERUNS, is_lost_run, missing_source, require_same_model
from transparent_llm.client.transport.calls import Calls
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotFoundError
from transparent_llm.interventions import Effects, Intervention, RowComparison
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.interventions.sources import kept_in
from transparent_llm.run_input import RunInput
from transparent_llm.runtime.current import Current
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.wire import requests, responses

log = logging.getLogger("transparent_llm")
_Result = TypeVar("_Result")


class Runs:
    """One of them is current for whoever asks: see `Current`."""

    def __init__(
        self,
        calls: Calls,
        models: Models,
        model: str,
        reader: RunReader,
        current: Current[CurrentRun] | None = None,
    ) -> None:
        self._calls, self._models, self._model, self._reader = calls, models, model, reader
        self._current = current or Current()
        self._rows: WeakKeyDictionary[CurrentRun, tuple[RowComparison, ...]] = WeakKeyDictionary()

    @property
    def latest(self) -> CurrentRun | None:
        """What was run last, whoever did it."""
        return self._current.peek()

    @property
    def digest(self) -> str:
        """Of the model that ran, so that what belongs to the model alone is of no other; empty if none did yet."""
        return "" if self.latest is None else self.latest.result.model_digest

    def copy(self, reader: RunReader) -> Runs:
        """For another object, which begins with the latest one."""
        return Runs(self._calls, self._models, self._model, reader, self._current.copy())

    def current(self) -> CurrentRun:
        """The caller's.

        Raises:
            NotRunError: there is none, or another thread has replaced it.
        """
        return self._current.get()

    def begin(
        self,
        run_input: RunInput,
        edits: tuple[Intervention, ...] = (),
        sources: Mapping[TransparentLlm, CurrentRun] | None = None,
        key: str | None = None,
    ) -> CurrentRun:
        """Run it, changed by edits that take from these runs, and let it be current; where a routing key leads, if not
        that of the input."""
        run = self._make(run_input, edits, sources or {}, key)
        self._reader.forget(self.latest)
        self._current.begin(run, run.result.run_id)
        return run

    @plain_torch()
    def read(
        self,
        read: Callable[[CurrentRun], _Result],
        sources: Mapping[TransparentLlm, CurrentRun] | None = None,
        kept: Mapping[str, KeptVector] | None = None,
    ) -> _Result:
        """Read from the current run, which is run again if the server has lost it; so are other runs that the read
        takes something from, and kept vectors by digest are sent again."""
        sources, kept = sources or {}, kept or {}
        for _ in range(MOST_RERUNS * (1 + len(sources) + len(kept))):
            run = self.current()
            try:
                return read(run)
            except NotFoundError as error:
                missing = missing_source(error)
                if not self._calls.config.rerun or not missing:
                    raise
                bring = None if missing == run.result.run_id else self._brings(missing, kept, sources, run.key)
                if bring is not None:
                    bring()
                    continue
                if not is_lost_run(error):
                    raise
            log.debug("the server no longer has run %.80r; running its input again", run.result.run_id)
            again = self._make(run.run_input, run.edits, run.sources)
            require_same_model(run.result.model_digest, again.result.model_digest, self._calls.config.target)
            self._reader.forget(run)
            self._current.renew(run, again)
        return read(self.current())

    def effects(self) -> Effects:
        """Of the current run's edits; the unedited run is made where that one is, if it is not there."""
        return self.read(self._effects) if self.current().edits else Effects((), ())

    def compared(self, other: CurrentRun, from_pos: int | None) -> tuple[RowComparison, ...]:
        """The current run beside another one, which is run again where the current one is, if it is not there."""

        def again(key: str) -> CurrentRun:
            return self._make(other.run_input, other.edits, other.sources, key)

        made = again if self._calls.config.rerun else None
        return self.read(lambda run: self._compared(run, other.result.run_id, made, from_pos))

    def _effects(self, run: CurrentRun) -> Effects:
        rows = self._rows.get(run)
        if rows is None:
            rows = self._compared(run, run.result.unedited_run_id, lambda key: self._make(run.run_input, (), {}, key))
            self._rows[run] = rows
        return Effects(run.result.effects, rows)

    def _compared(
        self,
        run: CurrentRun,
        other_id: str,
        again: Callable[[str], CurrentRun] | None,
        from_pos: int | None = None,
    ) -> tuple[RowComparison, ...]:
        """A run beside one that may not be there, or not where a routing key leads: `again` then makes it there."""
        lengths = [run.n_tokens(row) for row in range(run.shape[0])]
        start = None if from_pos is None else checked_index("from_pos", from_pos, min(lengths))
        read = partial(responses.comparisons, n_pos=[0 if start is None else length - start for length in lengths])
        for attempt in range(MOST_RERUNS + 1):
            try:
                return self._calls.unary(
                    "CompareRuns", requests.compare_runs(run.result.run_id, other_id, start), read, run.key
                )
            except NotFoundError as error:
                is_other = is_lost_run(error) and error.metadata.get("run_id") == other_id
                if again is None or not is_other or attempt == MOST_RERUNS:
                    raise
            made = again(run.key)
            require_same_model(run.result.model_digest, made.result.model_digest, self._calls.config.target)
            other_id = made.result.run_id
        raise AssertionError("the last attempt returned or raised")

    @plain_torch()
    def _make(
        self,
        run_input: RunInput,
        edits: tuple[Intervention, ...],
        sources: Mapping[TransparentLlm, CurrentRun],
        key: str | None = None,
    ) -> CurrentRun:
        """Run it, where a routing key leads; what it takes from is run again there if it is not there."""
        key = run_input.key(self._model) if key is None else key
        read = partial(responses.run, run_input=run_input, edits=edits)
        request = requests.run(run_input, self._model, edits, lambda source: sources[source].result.run_id)
        result = self.bringing(lambda: self._calls.unary("Run", request, read, key), edits, sources, key)
        return CurrentRun(run_input, key, result, self._models, edits, sources)

    @plain_torch()
    def bringing(
        self,
        ask: Callable[[], _Result],
        edits: tuple[Intervention, ...],
        sources: Mapping[TransparentLlm, CurrentRun],
        key: str,
    ) -> _Result:
        """What is answered where a routing key leads; what edits take from is brought there if it is not there."""
        lost: set[str] = set()
        while True:
            try:
                return ask()
            except NotFoundError as error:
                missing = missing_source(error)
                bring = self._brings(missing, kept_in(edits), sources, key)
                if not self._calls.config.rerun or bring is None or missing in lost:
                    raise
                lost.add(missing)
                log.debug("the server does not have %.80r that an edit takes from; bringing it again", missing)
                bring()

    def _brings(
        self,
        missing: str,
        kept: Mapping[str, KeptVector],
        sources: Mapping[TransparentLlm, CurrentRun],
        key: str,
    ) -> Callable[[], object] | None:
        """What brings a run or a kept vector that something takes from to where a routing key leads; None: neither."""
        run = next((source for source in sources.values() if source.result.run_id == missing), None)
        if run is not None:
            return partial(self._make, run.run_input, run.edits, run.sources, key)
        vector = kept.get(missing)
        if vector is None or vector.values is None:
            return None
        request, read = requests.keep_vector(vector.name, vector.values), partial(responses.kept, digest=missing)
        return partial(self._calls.unary, "KeepVector", request, read, key)
