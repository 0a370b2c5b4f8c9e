"""Generations: costed before anything is computed, then one step after the other in its turn, and the run of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Generator, Iterator, Sequence
from functools import partial

from transparent_llm.errors import NotSupportedError
from transparent_llm.generation import GenerationSettings
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.wire import generation as wire_generation
from transparent_llm.wire import interventions
from transparent_llm.wire._gen import generation_pb2
from transparent_llm_server.models.generating.generation import Generation
from transparent_llm_server.models.serving import CompletedRun, ServedModel
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
            rows = yield from self._steps(model, self._passes.computed(model, begin, 1, caller), caller)
            run_id = self._run(model, rows, edits, sources, caller)
        finally:
            let_go()
        yield wire_generation.run_to_wire(run_id, rows)

    def _steps(self, model: ServedModel, generation: Generation, caller: Caller) -> Generator[bytes, None, _Rows]:
        """A message for each; returns the rows that are to be run."""
        positions = generation.positions
        with (
            self.remembered.taking(generation.cache_bytes),
            self._quotas.counted(caller.owner, "positions", positions) as took,
        ):
            while not generation.is_finished:
                cost = generation.next_positions
                logits = self._passes.computed(model, generation.logits, cost, caller)
                took(cost)
                self._passes.count(cost)
                step = self._engine.run_inline(partial(generation.chosen, logits))
                yield wire_generation.step_to_wire(step)
        return generation.rows()

    def _run(
        self,
        model: ServedModel,
        rows: _Rows,
        edits: tuple[Intervention, ...],
        sources: Sources,
        caller: Caller,
    ) -> str:
        """The run of what was generated, by the way of every run: its id."""
        prepared = model.prepare(RunInput(token_ids=tuple(map(tuple, rows))))
        prepared = model.edited(prepared, edits, sources.ids.__getitem__)
        prepared = dataclasses.replace(prepared, sources=tuple(sources.runs.values()))
        return self._prepared_runs.completed(model, prepared, caller, tells_place=False)[0]


def _begun(model: ServedModel, rows: _Rows, settings: GenerationSettings, edits: Sequence[Intervention]) -> Generation:
    begin = getattr(model.llm, "generation", None)
    if begin is None:
        raise NotSupportedError(f"{type(model.llm).__name__} cannot go on with texts")
    generation: Generation = begin(rows, settings, edits)
    return generation
