"""Running batches in this process: rows of tokens, as they are or edited on their way."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import replace

from transparent_llm.analysis.differentiation import Differentiable, Differentiation, Gradients
from transparent_llm.analysis.sweep_cells import Sweep, Sweepable, SweepPart, SweepPlan
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.generation import Chat, Generating, GenerationSettings, Prompts, Step
from transparent_llm.interventions import Effects, Intervention, RowComparison
from transparent_llm.interventions.own import Editable
from transparent_llm.interventions.sources import with_unedited
from transparent_llm.run_input import RunInput, checked_bos
from transparent_llm.runtime.current import Current
from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm.runtime.run_warning import warn_of_run
from transparent_llm_server.models.derived.comparison import compared
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.differentiation.differentiated_run import DifferentiatedRun
from transparent_llm_server.models.forward.batch import Batch, run_together
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.tokenization import Tokenization
from transparent_llm_server.models.generating.generation import Generation
from transparent_llm_server.models.interventions.rewriting import Edits
from transparent_llm_server.models.keeping import Keeping
from transparent_llm_server.models.sweeping.swept_run import SweptRun


class Running(Editable, Keeping, Sweepable, Differentiable, Generating, TransparentLlm):
    """The part of the class that runs: an object has one current run, and may be within blocks of edits."""

    _model: BridgedModel
    _tokenization: Tokenization
    _end_tokens: frozenset[int]
    _current_run: Current[RunValues]
    _quantization: str

    def run(self, sentences: list[str], *, add_bos: bool | None = None, edits: Sequence[Intervention] = ()) -> None:
        self._begin(self.encode(sentences, checked_bos(add_bos)), self._own_edits.before(edits))

    def run_tokens(self, token_ids: list[list[int]], *, edits: Sequence[Intervention] = ()) -> None:
        rows = RunInput.of_tokens(token_ids).token_ids or ()
        self._tokenization.check(rows)
        self._begin(rows, self._own_edits.before(edits))

    def effects(self) -> Effects:
        """What each edit of the current run did, in their order, and what became of each row: the run beside the same
        input unedited, which is run for it, once."""
        values = self._current_run.get()
        if values.effects and values.beside_unedited is None:
            with standard_numerics():
                unedited = self.run_batches([Batch(values.capture.tokens, values.capture.mask)])[0]
                values.beside_unedited = compared(self._model, values, unedited, self._tokenization.strings)
        return Effects(values.effects, values.beside_unedited or ())

    @standard_numerics()
    def compare(self, other: TransparentLlm, from_pos: int | None = None) -> tuple[RowComparison, ...]:
        """What the current run says of the next token beside the current run of another object, row by row, each at its
        last token; with `from_pos` also at each position from there to a row's last token, which is to be of the same
        tokens in both.

        Raises:
            NotRunError: one of them has none.
            InvalidRequestError: `other` is of another model, or its run has more or fewer rows,
                or, with `from_pos`, other tokens.
            IndexOutOfRangeError: a row has no position `from_pos`.
        """
        if not isinstance(other, Running):
            raise InvalidRequestError(
                f"what is compared with is an object of the same model with a current run, got {type(other).__name__}"
            )
        values, others = self._current_run.get(), other._current_run.get()
        return compared(self._model, values, others, self._tokenization.strings, from_pos)

    def _begin(self, rows: Sequence[Sequence[int]], edits: tuple[Intervention, ...]) -> None:
        self._begin_of(self._ran(rows, edits))

    @standard_numerics()
    def _ran(self, rows: Sequence[Sequence[int]], edits: tuple[Intervention, ...]) -> RunValues:
        batch = self.prepare(rows)
        made = with_unedited(edits, lambda: self._unedited(batch))
        return self.run_edited(batch, made) if made else self.run_batches([batch])[0]

    def _begin_of(self, values: RunValues) -> None:
        with standard_numerics():
            found = self.warnings_of(values)
        self._current_run.begin(values)
        warn_of_run(found)

    def _unedited(self, batch: Batch) -> TransparentLlm:
        """Another object, whose current run is of the same rows without edits."""
        twin = copy.copy(self)
        twin._current_run.begin(self.run_batches([batch])[0])
        return twin

    def encode(self, sentences: list[str], add_bos: bool | None = None) -> list[list[int]]:
        """Token ids of each sentence as `run` would use them, checked but not run."""
        return self._tokenization.encode(RunInput.of_sentences(sentences).sentences or (), add_bos)

    def check_tokens(self, token_ids: Sequence[Sequence[int]]) -> None:
        """Refuse what `run_tokens` would refuse, without running it."""
        self._tokenization.check(token_ids)

    def prepare(self, token_ids: Sequence[Sequence[int]]) -> Batch:
        """Pad checked rows to a batch that `run_batches` can run."""
        return Batch(*self._tokenization.pad(token_ids))

    def run_batches(self, batches: Sequence[Batch]) -> list[RunValues]:
        """Run several batches in one forward pass, which gives the same values within rounding; one alone: exactly."""
        return [RunValues(self._model, capture) for capture in run_together(self._model, batches)]

    def run_edited(self, batch: Batch, edits: Sequence[Intervention]) -> RunValues:
        """Run one batch, changed on its way.

        Raises:
            IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
            NotSupportedError: the model has nothing at a site.
            InvalidRequestError: an edit selects nothing; a source of another model.
        """
        made = Edits(self._model, edits, batch.lengths)
        capture = made.run(batch)
        return RunValues(self._model, capture, made.effects)

    def swept(self, sweep: Sweep) -> SweptRun:
        """A sweep of the current run, checked, of which nothing was computed yet. Raises: as `sweep`."""
        return SweptRun(self._model, self._current_run.get(), sweep)

    def plan_sweep(self, sweep: Sweep) -> SweepPlan:
        """What it would take."""
        with standard_numerics():
            swept = self.swept(sweep)
        return SweepPlan(sweep.positions(self._current_run.get().tokens().shape), 0, swept.cells_at_once)

    def sweep(self, sweep: Sweep) -> Iterator[SweepPart]:
        """What each cell gives, of some at a time."""
        with standard_numerics():
            swept = self.swept(sweep)
            baselines = swept.baselines()
        for n, cells in enumerate(swept.passes()):
            with standard_numerics():
                values = swept.measured(cells)
            yield SweepPart(None if n else baselines, cells, values)

    def differentiated(self, asked: Differentiation) -> DifferentiatedRun:
        """The current run, to be differentiated, checked, of which nothing was computed yet. Raises: as `gradients`."""
        return DifferentiatedRun(self._model, self._current_run.get(), asked, self._quantization)

    @standard_numerics()
    def gradients(self, asked: Differentiation) -> Gradients:
        """By one pass there and back; along a path by some."""
        found = self.differentiated(replace(asked, edits=with_unedited(asked.edits, lambda: self)))
        for _, step in found.steps():
            step()
        return found.result()

    def encode_chat(self, chat: Chat) -> list[int]:
        """Token ids of a conversation, as the template of the tokenizer renders it, checked but not run."""
        return self._tokenization.chat(chat.messages)

    def generation(
        self, rows: Sequence[Sequence[int]], settings: GenerationSettings, edits: Sequence[Intervention] = ()
    ) -> Generation:
        """One of checked rows, of which no step was computed yet. Raises: as `Generation`."""
        return Generation(self._model, self._tokenization, self._end_tokens, rows, settings, edits)

    def _generated(
        self, prompts: Prompts, settings: GenerationSettings, edits: tuple[Intervention, ...]
    ) -> Iterator[Step]:
        if isinstance(prompts, Chat):
            rows = [self.encode_chat(prompts)]
        elif prompts.token_ids is None:
            rows = self.encode(list(prompts.sentences or ()))
        else:
            self._tokenization.check(prompts.token_ids)
            rows = [list(row) for row in prompts.token_ids]
        with standard_numerics():
            generation = self.generation(rows, settings, edits)
        while not generation.run_is_next:
            with standard_numerics():
                step = generation.told(generation.chosen(generation.logits()))
            yield step
        values = self._ran(generation.rows(), edits)
        if not generation.is_finished:
            with standard_numerics():
                step = generation.told(generation.chosen(generation.last_logits(values.capture)))
            yield step
        self._begin_of(values)

    def warnings(self) -> tuple[str, ...]:
        """What should be known before values of the current run are believed: `run` warned of it."""
        return self.warnings_of(self._current_run.get())

    def warnings_of(self, values: RunValues) -> tuple[str, ...]:
        """What should be known before the values of a run are believed."""
        return (*values.warnings, *self._tokenization.warnings(values.tokens().tensor(), values.mask().tensor()))
