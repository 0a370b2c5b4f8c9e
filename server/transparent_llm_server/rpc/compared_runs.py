"""The answer to CompareRuns: two runs of one owner, row by row."""

from __future__ import annotations

from transparent_llm.errors import NotSupportedError
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.models.derived.comparison import work_of_comparing
from transparent_llm_server.models.running import Running
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.rpc.answers import Answers
from transparent_llm_server.rpc.caller import Caller


def compare(
    run: CompletedRun, other: CompletedRun, from_pos: int | None, answers: Answers, caller: Caller
) -> service_pb2.CompareRunsResponse:
    """What a run says of the next token beside another one, from a position on where one is given.

    Raises:
        InvalidRequestError: they are of two models, or have other numbers of rows, or other tokens if they matter.
        IndexOutOfRangeError: a row has no such position.
        NotSupportedError: the model is no such implementation.
        TooLargeError: so many rows or positions are too much work.
    """
    llm, info = run.llm, run.model.description.info
    if not isinstance(llm, Running):
        raise NotSupportedError(f"runs of {type(llm).__name__} cannot be compared")
    n_rows, n_pos = run.tokens.shape
    each = 1 if from_pos is None else 1 + max(0, n_pos - from_pos)
    work = work_of_comparing(n_rows * each, info.d_model, info.d_vocab)
    rows = answers.made(lambda: llm.compare(other.llm, from_pos), work, "fewer rows in one run, or positions", caller)
    return wire_runs.comparisons_to_wire(rows)
