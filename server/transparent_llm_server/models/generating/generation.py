"""Rows that grow by a token a step: what has to be computed for each step, and what comes of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch

from transparent_llm.generation import Finished, GenerationSettings, NextToken, Step, require_movable
from transparent_llm.interventions import Intervention
from transparent_llm_server.models.forward.batch import Batch, run_together
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.tokenization import Tokenization
from transparent_llm_server.models.generating.choosing import Chooser, Ends
from transparent_llm_server.models.generating.remembering import RememberedRow, bytes_per_token, remembers
from transparent_llm_server.models.interventions.rewriting import Edits


@dataclass(frozen=True)
class Choice:
    """The next token of a row, chosen but not told yet."""

    token_id: int
    finished: Finished | None
    logits: torch.Tensor
    """By which it was chosen [d_vocab]."""


class Generation:
    """One, checked; no step of it was computed yet. Its steps: `told(chosen(logits()))` until the run comes next, whose
    last logits choose the last tokens of those that are not finished by then.

    Rows are computed one by one, each as if it were alone, by passes that remember; with edits all of them whole, in
    the passes that a run of them with these edits would have.

    Raises:
        TooLargeError: a prompt and its new tokens are more than the model's context.
        InvalidRequestError: an edit that cannot be made of what grows; or as a run with edits.
        IndexOutOfRangeError: a stop token that the model does not have; or as a run with edits: positions are those of
            the prompts.
        NotSupportedError: as a run with edits.
    """

    def __init__(
        self,
        model: BridgedModel,
        tokenization: Tokenization,
        end_tokens: Collection[int],
        rows: Sequence[Sequence[int]],
        settings: GenerationSettings,
        edits: Sequence[Intervention] = (),
    ) -> None:
        tokenization.require_context(map(len, rows), settings.max_new_tokens)
        tokenization.check_ids(settings.stop_token_ids)
        self._model, self._tokenization, self._settings = model, tokenization, settings
        self._edits = tuple(edits)
        self._prompts, self._new = [list(row) for row in rows], [list[int]() for _ in rows]
        self._require_edits()
        self._going_on = list(range(len(rows)))
        self._chooser = Chooser(settings, len(rows))
        self._ends = Ends(settings, end_tokens, tokenization.text)
        self._at = model.edits.check()
        self._remembered: list[RememberedRow] | None = None
        if not edits and remembers(model):
            more = settings.max_new_tokens - 1
            self._remembered = [RememberedRow(model, self._at, len(row) + more) for row in rows]

    @property
    def is_finished(self) -> bool:
        """Whether no row goes on."""
        return not self._going_on

    @property
    def run_is_next(self) -> bool:
        """Whether `rows` are to be run now: none goes on, or all that do have one token more at the most, and the next
        step would compute what the run computes, to the bit."""
        is_last = all(len(self._new[row]) == self._settings.max_new_tokens - 1 for row in self._going_on)
        return is_last and (self.is_finished or self._steps_are_runs)

    @property
    def _steps_are_runs(self) -> bool:
        """Whether a step is the run of the rows as they are: with edits, or where nothing is remembered of a row."""
        if self._edits:
            return True
        return len(self._prompts) == 1 and (self._remembered is None or self._remembered[0].is_empty)

    @property
    def cache_bytes(self) -> int:
        """That will be remembered at the most."""
        if self._remembered is None:
            return 0
        longest = sum(len(row) + self._settings.max_new_tokens - 1 for row in self._prompts)
        return longest * bytes_per_token(self._model)

    @property
    def positions(self) -> int:
        """That all steps together compute at the most, without the run."""
        more = self._settings.max_new_tokens
        lengths = [len(row) for row in self._prompts]
        if self._remembered is not None:
            again = sum(border for border in self._model.regimes.borders)  # where what is remembered is of no more use
            return sum(length + more - 1 + again for length in lengths)
        whole = len(lengths) * max(lengths) if self._edits else sum(lengths)
        return more * whole + len(lengths) * (more * (more - 1) // 2)

    @property
    def next_positions(self) -> int:
        """That the next step computes."""
        rows = self.rows()
        if self._edits:
            return len(rows) * max(map(len, rows))
        if self._remembered is None:
            return sum(len(rows[row]) for row in self._going_on)
        return sum(self._remembered[row].n_new(len(rows[row])) for row in self._going_on)

    def rows(self) -> tuple[tuple[int, ...], ...]:
        """What the model reads: the prompts and all new tokens; of finished rows without their last one."""
        finished = set(range(len(self._prompts))).difference(self._going_on)
        return tuple(
            (*prompt, *(new[:-1] if row in finished else new))
            for row, (prompt, new) in enumerate(zip(self._prompts, self._new, strict=True))
        )

    def logits(self) -> Sequence[torch.Tensor]:
        """Of the next token of each row that is not finished [d_vocab], float32 on the CPU.

        Raises:
            NotFoundError: MODEL_CHANGED.
            AbandonedError: nobody waits for them any more.
        """
        rows = self.rows()
        if self._edits:
            self._model.edits.require_unchanged(self._at)
            batch = self._batch(rows)
            return self._last(Edits(self._model, self._edits, batch.lengths).run(batch), self._going_on, rows)
        found = []
        for row in self._going_on:
            raise_if_cancelled()
            if self._remembered is not None:
                found.append(self._remembered[row].logits(rows[row]))
            else:
                self._model.edits.require_unchanged(self._at)
                (capture,) = run_together(self._model, [self._batch([rows[row]])])
                found.append(self._last(capture, [0], [rows[row]])[0])
        return found

    def last_logits(self, run: Capture) -> Sequence[torch.Tensor]:
        """As `logits`, out of the run of `rows`.

        Raises:
            NotFoundError: MODEL_CHANGED.
        """
        self._model.edits.require_unchanged(self._at)
        return self._last(run, self._going_on, self.rows())

    def chosen(self, logits: Sequence[torch.Tensor]) -> tuple[Choice | None, ...]:
        """The next token of each row, by the logits of those that are not finished; None of the others. Any thread.
        From here on the next step can be computed.

        Raises:
            NotSupportedError: logits that are not finite.
        """
        found: list[Choice | None] = [None] * len(self._prompts)
        for row, of_row in zip(tuple(self._going_on), logits, strict=True):
            token = self._chooser.token(row, of_row)
            self._new[row].append(token)
            finished = self._ends.finished(self._new[row])
            if finished is not None:
                self._going_on.remove(row)
                if self._remembered is not None:
                    self._remembered[row].forget()
            found[row] = Choice(token, finished, of_row)
        return tuple(found)

    def told(self, choices: Sequence[Choice | None]) -> Step:
        """What is told of them. Any thread, also while the next step is computed."""
        return Step(tuple(None if choice is None else self._told(choice) for choice in choices))

    def _told(self, choice: Choice) -> NextToken:
        logprobs, n_top = choice.logits.log_softmax(0), min(self._settings.top_logprobs, len(choice.logits))
        (text,) = self._tokenization.strings([choice.token_id])
        found = NextToken(choice.token_id, text, float(logprobs[choice.token_id]), choice.finished)
        if not n_top:
            return found
        top = logprobs.topk(n_top)
        return found._replace(top_ids=tuple(top.indices.tolist()), top_logprobs=tuple(top.values.tolist()))

    def _batch(self, rows: Sequence[Sequence[int]]) -> Batch:
        return Batch(*self._tokenization.pad(rows))

    def _last(self, capture: Capture, of: Sequence[int], rows: Sequence[Sequence[int]]) -> Sequence[torch.Tensor]:
        """The logits at the last token of some rows of a capture."""
        at = list(of), [len(rows[row]) - 1 for row in of]
        everything = range(self._model.d_vocab)
        return list(self._model.unembed(capture.residual_out[at], normalize=True, tokens=everything).float().cpu())

    def _require_edits(self) -> None:
        """They are of places that the prompts have, and can still be made in the last step."""
        if not self._edits:
            return
        require_movable(self._edits)
        lengths = [len(row) for row in self._prompts]
        Edits(self._model, self._edits, lengths)
        Edits(self._model, self._edits, [length + self._settings.max_new_tokens - 1 for length in lengths])
