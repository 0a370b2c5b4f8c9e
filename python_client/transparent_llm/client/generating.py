"""The part of the remote object that goes on with texts: tokens come step by step, and then the run of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from transparent_llm.client.arrivals import arrivals
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.running import RemoteRunning, runs_of
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InternalError, UnavailableError
from transparent_llm.generation import Chat, Generating, GenerationSettings, Prompts, Step, require_movable
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.runtime.run_warning import warn_of_run
from transparent_llm.wire import generation
from transparent_llm.wire.requests import Request


class RemoteGenerating(Generating, RemoteRunning):
    """Generations of one object: see `RemoteTransparentLlm`."""

    def _generated(
        self, prompts: Prompts, settings: GenerationSettings, edits: tuple[Intervention, ...]
    ) -> Iterator[Step]:
        self._shared.models.require("generate")
        require_movable(edits)
        sources, key = runs_of(edits), _key(prompts, self._model)
        asking = _Asking(prompts, settings, edits, self._model, sources, self._config.target)

        def fetch(put: Callable[[Step], None], interruptible: Interruptible) -> None:
            def ask() -> None:
                self._calls.messages(
                    "Generate", asking.request, lambda data: asking.take(data, put), key, interruptible
                )

            self._runs.bringing(ask, edits, sources, key)

        yield from arrivals(fetch)
        rows = asking.arrived.rows
        if rows is None:
            raise InternalError(f"{self._config.target} ended a generation before its run had come")
        run = self._runs.begin(RunInput(token_ids=rows), edits, sources, key)
        warn_of_run(run.result.warnings)


@dataclass
class _Asking:
    """One call, made again as a whole where it breaks before anything of it has come."""

    prompts: Prompts
    settings: GenerationSettings
    edits: tuple[Intervention, ...]
    model: str
    sources: Mapping[TransparentLlm, CurrentRun]
    target: str

    def __post_init__(self) -> None:
        self.arrived = generation.Arrived(self.prompts, self.settings)

    def request(self) -> Request:
        """Of all of it.

        Raises:
            UnavailableError: some steps have come, and no server knows how to go on behind them.
        """
        if self.arrived.n_steps:
            raise UnavailableError(
                f"{self.target} was lost after {self.arrived.n_steps} of at most {self.settings.max_new_tokens} steps "
                "of a generation; generate again, or go on with generate_tokens from what has come",
                metadata={"steps": str(self.arrived.n_steps), "target": self.target},
            )
        named = self.sources.__getitem__
        return generation.to_wire(
            self.prompts, self.settings, self.edits, self.model, lambda llm: named(llm).result.run_id
        )

    def take(self, data: bytes, put: Callable[[Step], None]) -> None:
        """One message."""
        step = self.arrived.take(data)
        if step is not None:
            put(step)


def _key(prompts: Prompts, model: str) -> str:
    """Where it is computed: as a run of the prompts; a chat as a run of its messages."""
    if isinstance(prompts, Chat):
        return RunInput(sentences=tuple(content for _, content in prompts.messages)).key(model)
    return prompts.key(model)
