"""Generations: costed before anything is computed, then one step after the other in its turn, and the run of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from functools import partial

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.generation import GenerationSettings
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.wire import generation as wire_generation
from transparent_llm.wire import interventions
from transparent_llm.wire._gen import generation_pb2
from transparent_llm_server.models.generating.generation import Choice, Generation
from transparent_llm_server.models.serving import CompletedRun, ServedModel
from transparent_llm_server.models.transformer_lens import TransformerLensTransparentLlm
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.edited_runs import Sources
from transparent_llm_server.rpc.intake import Intake
from transparent_llm_server.rpc.passes import Passes
from transparent_llm_server.rpc.prepared_runs import PreparedRuns
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.generation_bytes import GenerationBytes
from transparent_llm_server.scheduling.quotas import Quotas
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.vector_store import VectorStore

_Rows = Sequence[Sequence[int]]
_Choices = Sequence[Choice | None]


class Generations:
    """Of a server. Steps of a generation wait as runs do: flows have turns, by positions."""

    def __init__(
        self,
        engine: Engine,
        passes: Passes,
        admission: Admission,
        quotas: Quotas,
        runs: RunStore[CompletedRun],
        vectors: VectorStore,
        intake: Intake,
        prepared_runs: PreparedRuns,
        remembered: GenerationBytes,
    ) -> None:
        self._engine, self._passes, self._admission, self._quotas = engine, passes, admission, quotas
        self._runs, self._vectors, self._intake, self._prepared_runs = runs, vectors, intake, prepared_runs
        self.remembered = remembered
        """What those under way take of the memory."""

    def stream(self, model: ServedModel, request: generation_pb2.GenerateRequest, caller: Caller) -> Iterator[bytes]:
        """The messages of an answer.

        Raises:
            InvalidRequestError: what makes no sense.
            NotFoundError: RUN_NOT_FOUND or VECTOR_NOT_FOUND, with the id or digest of what edits take something from.
            IndexOutOfRangeError: what it names is not there.
            NotSupportedError: the model cannot go on with texts, or not be edited; or it has no chat template.
            TooLargeError: more rows, text or tokens than the model or the server takes.
            BusyError: there is no room now, too many runs wait, or QUOTA_EXCEEDED.
        """
        settings = wire_generation.settings_from_wire(request)
        prepared = self._intake.prompts(model, request, caller)
        n_rows, longest = prepared.n_rows, prepared.longest + settings.max_new_tokens
        self._admission.require_tokens(n_rows * longest)
        self._runs.require_room(model.description.run_bytes(n_rows, longest - 1))
        sources = Sources(self._runs, self._vectors, caller.owner)
        edits = interventions.from_wire(request.edits, sources)
        let_go = self._runs.hold(sources.runs.values(), caller.owner)
        try:
            begin = partial(_begun, model, prepared.rows or (), settings, edits)
            generation = self._passes.computed(model, begin, 1, caller)
            yield from self._steps(model, generation, caller)
            rows = generation.rows()
            run_id, last = self._run(model, generation, edits, sources, caller)
            if last is not None:
                yield last
        finally:
            let_go()
        yield wire_generation.run_to_wire(run_id, rows)

    def _steps(self, model: ServedModel, generation: Generation, caller: Caller) -> Iterator[bytes]:
        """A message for each. When one is told, the next one is under way."""
        positions = generation.positions
        with (
            self.remembered.taking(generation.cache_bytes),
            self._quotas.counted(caller.owner, "positions", positions) as took,
            _ended() as begun,
        ):
            choices: _Choices | None = None
            while not generation.run_is_next:
                cost = generation.next_positions
                begun[:] = [self._passes.begun(model, generation.logits, cost, caller)]
                if choices is not None:
                    yield self._told(generation, choices)
                choices = self._chosen(generation, caller.result_of(begun.pop()))
                took(cost)
                self._passes.count(cost)
            if choices is not None:
                yield self._told(generation, choices)

    def _chosen(self, generation: Generation, logits: Sequence[torch.Tensor]) -> _Choices:
        return self._engine.run_inline(partial(generation.chosen, logits))

    def _told(self, generation: Generation, choices: _Choices) -> bytes:
        return wire_generation.step_to_wire(self._engine.run_inline(partial(generation.told, choices)))

    def _run(
        self,
        model: ServedModel,
        generation: Generation,
        edits: tuple[Intervention, ...],
        sources: Sources,
        caller: Caller,
    ) -> tuple[str, bytes | None]:
        """The run of what was generated, by the way of every run: its id, and the message of the step that it gives."""
        prepared = model.prepare(RunInput(token_ids=generation.rows()))
        prepared = model.edited(prepared, edits, sources.ids.__getitem__)
        prepared = dataclasses.replace(prepared, sources=tuple(sources.runs.values()))
        run_id, run = self._prepared_runs.completed(model, prepared, caller, tells_place=False)
        if generation.is_finished:
            return run_id, None
        assert isinstance(run.llm, TransformerLensTransparentLlm), "nothing else begins a generation"
        last = partial(generation.last_logits, run.llm.values().capture)
        choices = self._chosen(generation, self._passes.computed(model, last, 1, caller))
        return run_id, self._told(generation, choices)


def _begun(model: ServedModel, rows: _Rows, settings: GenerationSettings, edits: Sequence[Intervention]) -> Generation:
    begin = getattr(model.llm, "generation", None)
    if begin is None:
        raise NotSupportedError(f"{type(model.llm).__name__} cannot go on with texts")
    generation: Generation = begin(rows, settings, edits)
    return generation


@contextmanager
def _ended() -> Iterator[list[Future[Sequence[torch.Tensor]]]]:
    """Work that is in this list at the end of the block is not begun, or has come to its end: where nobody waits for it
    any more, that is no later than the end of a layer."""
    begun: list[Future[Sequence[torch.Tensor]]] = []
    try:
        yield begun
    finally:
        wait([future for future in begun if not future.cancel()])
