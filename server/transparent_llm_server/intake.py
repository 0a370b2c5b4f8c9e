"""What calls bring for a tokenizer: measured before it sees anything, and tokenized where nobody else waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeVar

from transparent_llm.wire import runs as wire_runs
from transparent_llm_server.admission import Admission
from transparent_llm_server.caller import Caller
from transparent_llm_server.models.served import PreparedRun, ServedModel
from transparent_llm_server.tokenizing import Tokenizing

_Result = TypeVar("_Result")

_LITTLE_TEXT_BYTES = 2048
_FEW_IDS = 1024
"""So much is tokenized on the call's own thread, within a few milliseconds; more waits for its turn."""


class Intake:
    """Of a server. What it does for a call that nobody waits for any more is dropped, between two sentences at the
    latest.
    """

    def __init__(self, admission: Admission, tokenizing: Tokenizing) -> None:
        self._admission = admission
        self._tokenizing = tokenizing

    def prepared(self, model: ServedModel, request: Any, caller: Caller, owner: str) -> PreparedRun:
        """The input of a `RunRequest`.

        Raises:
            TooLargeError: too many sentences or tokens, or too much text.
            InvalidRequestError: what the model cannot run.
            BusyError: too many calls wait for a tokenizer.
        """
        self._admission.require_sentences(wire_runs.n_sentences(request))
        text_bytes = wire_runs.text_bytes(request)
        self._admission.require_text(text_bytes)
        self._admission.require_tokens(wire_runs.n_tokens(request))
        prepare = partial(model.prepare, wire_runs.from_request(request))
        prepared = self._tokenized(model, prepare, text_bytes <= _LITTLE_TEXT_BYTES, caller, owner)
        self._admission.require_tokens(prepared.n_tokens)
        return prepared

    def strings(self, model: ServedModel, ids: Sequence[int], caller: Caller, owner: str) -> list[str]:
        """The text of each token id by itself.

        Raises:
            InvalidRequestError: an id outside the model's vocabulary.
            BusyError: too many calls wait for a tokenizer.
        """
        return self._tokenized(model, partial(model.strings, ids), len(ids) <= _FEW_IDS, caller, owner)

    def _tokenized(
        self, model: ServedModel, work: Callable[[], _Result], is_little: bool, caller: Caller, owner: str
    ) -> _Result:
        if is_little and model.tokenizes_concurrently:
            return work()
        return caller.result_of(self._tokenizing.submit(owner, work))
