"""The part of the remote object that runs: input to the server, as it is or with edits on its way."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

from transparent_llm.client.connected import run_of
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.keeping import RemoteKeeping
from transparent_llm.contract import TransparentLlm
from transparent_llm.interventions import Effects, Intervention, RowComparison
from transparent_llm.interventions.own import Editable
from transparent_llm.interventions.sources import sources_of, with_unedited
from transparent_llm.run_input import RunInput
from transparent_llm.runtime.run_warning import warn_of_run


class RemoteRunning(Editable, RemoteKeeping):
    """Runs of one object: see `RemoteTransparentLlm`."""

    def run(self, sentences: list[str], *, add_bos: bool | None = None, edits: Sequence[Intervention] = ()) -> None:
        run_input = RunInput.of_sentences(sentences, add_bos)
        if add_bos is not None:
            self._shared.models.require("add_bos")
        self._begin(run_input, edits)

    def run_tokens(self, token_ids: list[list[int]], *, edits: Sequence[Intervention] = ()) -> None:
        self._begin(RunInput.of_tokens(token_ids), edits)

    def effects(self) -> Effects:
        """What each edit of the current run did, in their order, and what became of each row: the run beside the same
        input unedited, which is run too if the server does not have it. Asked for once.

        Raises:
            NotRunError: nothing was run yet.
        """
        if self._runs.current().edits:
            self._shared.models.require("compare_runs")
        return self._runs.effects()

    def compare(self, other: TransparentLlm, from_pos: int | None = None) -> tuple[RowComparison, ...]:
        """What the current run says of the next token beside the current run of another object, row by row, each at its
        last token; with `from_pos` also at each position from there to a row's last token, which is to be of the same
        tokens in both.

        Raises:
            NotRunError: one of them has none.
            InvalidRequestError: `other` is of another server or model, or its run has more or fewer rows,
                or, with `from_pos`, other tokens.
            IndexOutOfRangeError: a row has no position `from_pos`.
        """
        self._shared.models.require("compare_runs" if from_pos is None else "compare_positions")
        return self._runs.compared(run_of(other, "what is compared with"), from_pos)

    def warnings(self) -> tuple[str, ...]:
        """What should be known before values of the current run are believed: `run` warned of it."""
        return self._runs.current().result.warnings

    def _begin(self, run_input: RunInput, edits: Sequence[Intervention]) -> None:
        made = self._own_edits.before(edits)
        if made:
            self._shared.models.require("edits")
            made = with_unedited(made, lambda: self._unedited(run_input))
        run = self._runs.begin(run_input, made, runs_of(made))  # by now another thread may have run this object
        warn_of_run(run.result.warnings)

    def _unedited(self, run_input: RunInput) -> TransparentLlm:
        """Another object, whose current run is of the same input without edits."""
        twin = copy.copy(self)
        twin._runs.begin(run_input)
        return twin  # type: ignore[return-value]  # remote objects are of the contract


def runs_of(edits: Sequence[Intervention]) -> Mapping[TransparentLlm, CurrentRun]:
    """What edits take from, as it is now."""
    return {source: run_of(source, "the source of an edit") for source in sources_of(edits)}  # type: ignore[misc]  # remote objects are of the contract
