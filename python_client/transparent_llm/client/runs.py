"""The runs of one client object: made, read, and made again where the server lost one."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.models import Models
from transparent_llm.client.reader import RunReader
from transparent_llm.client.reruns import MOST_RERUNS, is_lost_run, require_same_model
from transparent_llm.client.transport.calls import Calls
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotFoundError
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.runtime.current import Current
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
    ) -> CurrentRun:
        """Run it, changed by edits that take from these runs, and let it be current."""
        run = self._make(run_input, edits, sources or {})
        self._reader.forget(self.latest)
        self._current.begin(run, run.result.run_id)
        return run

    @plain_torch()
    def read(
        self, read: Callable[[CurrentRun], _Result], sources: Mapping[TransparentLlm, CurrentRun] | None = None
    ) -> _Result:
        """Read from the current run, which is run again if the server has lost it; so are other runs that the read
        takes something from."""
        for _ in range(MOST_RERUNS * (1 + len(sources or ()))):
            run = self.current()
            try:
                return read(run)
            except NotFoundError as error:
                if not (self._calls.config.rerun and is_lost_run(error)):
                    raise
                if self._is_made_again(error, run, sources or {}):
                    continue
            log.debug("the server no longer has run %.80r; running its input again", run.result.run_id)
            again = self._make(run.run_input, run.edits, run.sources)
            require_same_model(run.result.model_digest, again.result.model_digest, self._calls.config.target)
            self._reader.forget(run)
            self._current.renew(run, again)
        return read(self.current())

    def _is_made_again(
        self, error: NotFoundError, run: CurrentRun, sources: Mapping[TransparentLlm, CurrentRun]
    ) -> bool:
        """Whether the run that is lost is one that something is taken from; then it is where the run is."""
        missing = error.metadata.get("run_id", "")
        lost = next((source for source in sources.values() if source.result.run_id == missing), None)
        if lost is None or missing == run.result.run_id:
            return False
        self._make(lost.run_input, lost.edits, lost.sources, run.key)
        return True

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
        read = partial(responses.run, run_input=run_input, n_edits=len(edits))
        request = requests.run(run_input, self._model, edits, lambda source: sources[source].result.run_id)
        lost: set[str] = set()
        while True:
            try:
                result = self._calls.unary("Run", request, read, key)
            except NotFoundError as error:
                missing = error.metadata.get("run_id", "")
                of_missing = [source for source in sources.values() if source.result.run_id == missing]
                if not (self._calls.config.rerun and is_lost_run(error) and of_missing) or missing in lost:
                    raise
                lost.add(missing)
                log.debug("the server does not have run %.80r that an edit takes from; running it again", missing)
                self._make(of_missing[0].run_input, of_missing[0].edits, of_missing[0].sources, key)
            else:
                return CurrentRun(run_input, key, result, self._models, edits, sources)
