"""What calls bring for a tokenizer: measured before it sees anything, and tokenized where nobody else waits for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from google.protobuf.message import Message

from transparent_llm.run_input import RunInput
from transparent_llm.runtime import memory
from transparent_llm.wire import generation as wire_generation
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire._gen import generation_pb2, service_pb2
from transparent_llm_server.models.serving import PreparedRun, ServedModel
from transparent_llm_server.rpc.admission import Admission
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.scheduling.tokenizing import Tokenizing

_Request = TypeVar("_Request")
_Result = TypeVar("_Result")


_LITTLE_TEXT_BYTES = 2048
_FEW_IDS = 1024
"""So much is tokenized on the call's own thread, within a few milliseconds; more waits for its turn."""

_MUCH_TEXT_BYTES = 128 * 2**10
"""Of so much, a tokenizer makes what takes more than a hundred times as many bytes for a moment."""


@contextmanager
def _giving_back(text_bytes: int) -> Iterator[None]:
    """Around the work of a tokenizer on so much text."""
    try:
        yield
    finally:
        if text_bytes > _MUCH_TEXT_BYTES:
            memory.give_back()


class Intake:
    """Of a server. What it does for a call that nobody waits for any more is dropped, between two sentences at the
    latest.
    """

    def __init__(self, admission: Admission, tokenizing: Tokenizing) -> None:
        self._admission = admission
        self._tokenizing = tokenizing

    def parser(self, rpc: str, parse: Callable[[bytes], _Request]) -> Callable[[bytes], _Request]:
        """What parses the requests of an RPC: those that bring sentences or token ids are measured first."""

        def measured(data: bytes) -> _Request:
            self._admission.require_input_bytes(len(data))
            if rpc in ("Run", "Generate"):
                entries = wire_runs.n_entries if rpc == "Run" else wire_generation.n_entries
                self._admission.require_entries(entries(data, self._admission.most_entries))
            return parse(data)

        return measured if rpc in ("Run", "TokensToStrings", "Tokenize", "Generate") else parse

    def prepared(self, model: ServedModel, request: service_pb2.RunRequest, caller: Caller) -> PreparedRun:
        """The input of a `RunRequest`.

        Raises:
            TooLargeError: too many sentences or tokens, or too much text; or the text of its tokens will be more than
                one message may have.
            InvalidRequestError: what the model cannot run.
            BusyError: too many calls wait for a tokenizer.
        """
        self._admission.require_sentences(wire_runs.n_sentences(request))
        text_bytes, n_tokens = wire_runs.text_bytes(request), wire_runs.n_tokens(request)
        self._admission.require_text(text_bytes)
        self._admission.require_tokens(n_tokens)

        def prepare() -> PreparedRun:
            with _giving_back(text_bytes):
                prepared = model.prepare(wire_runs.from_request(request))
            self._admission.require_tokens(prepared.n_tokens)
            ids = model.padded_ids(prepared) if prepared.n_tokens > _FEW_IDS else None
            if ids is not None:  # before it is computed, what it can only be answered with afterwards
                told = service_pb2.RunResponse(token_ids=ids, token_strings=model.strings(ids))
                self._admission.require_answer(told.ByteSize(), len(ids))
            return prepared

        return self._done(prepare, self._is_little(model, n_tokens, text_bytes), caller)

    def prompts(self, model: ServedModel, request: generation_pb2.GenerateRequest, caller: Caller) -> PreparedRun:
        """The rows with which a generation begins, as they would be run.

        Raises:
            NotSupportedError: a chat, and a tokenizer without a template for it.
            TooLargeError, InvalidRequestError, BusyError: as `prepared`.
        """
        self._admission.require_sentences(len(request.prompts))
        text_bytes, n_tokens = wire_generation.text_bytes(request), wire_generation.n_tokens(request)
        self._admission.require_text(text_bytes)
        self._admission.require_tokens(n_tokens)
        prompts = wire_generation.prompts_from_wire(request)

        def prepare() -> PreparedRun:
            with _giving_back(text_bytes):
                return model.prepare(prompts if isinstance(prompts, RunInput) else model.chat(prompts))

        return self._done(prepare, self._is_little(model, n_tokens, text_bytes), caller)

    def tokenized(self, model: ServedModel, request: service_pb2.TokenizeRequest, caller: Caller) -> bytes:
        """The answer to a `TokenizeRequest`, serialized. Raises as `prepared` does, and as `answer`."""
        text_bytes = len(request.text.encode())
        self._admission.require_text(text_bytes)
        add_bos = request.add_bos if request.HasField("add_bos") else None

        def tokenize() -> bytes:
            with _giving_back(text_bytes):
                ids = model.tokenize(request.text, add_bos)
            answer = service_pb2.TokenizeResponse(token_ids=ids, token_strings=model.strings(ids))
            return self._serialized(answer, len(ids))

        is_little = text_bytes <= _LITTLE_TEXT_BYTES and model.tokenizes_concurrently
        return self._done(tokenize, is_little, caller)

    def answer(self, model: ServedModel, count: int, make: Callable[[], Message], caller: Caller) -> bytes:
        """An answer with the text of so many token ids, as `make` makes it, serialized: for long ones that holds the
        interpreter, and so is done where such work takes turns.

        Raises:
            InvalidRequestError: an id outside the model's vocabulary.
            TooLargeError: the text is more than one message may have.
            BusyError: too many calls wait for a tokenizer.
        """
        is_little = count <= _FEW_IDS and model.tokenizes_concurrently
        return self._done(lambda: self._serialized(make(), count), is_little, caller)

    def _is_little(self, model: ServedModel, n_tokens: int, text_bytes: int) -> bool:
        return n_tokens <= _FEW_IDS and text_bytes <= (_LITTLE_TEXT_BYTES if model.tokenizes_concurrently else 0)

    def _serialized(self, answer: Message, count: int) -> bytes:
        """An answer with the text of so many tokens, if one message may have it."""
        data: bytes = answer.SerializeToString()
        self._admission.require_answer(len(data), count)
        return data

    def _done(self, work: Callable[[], _Result], is_little: bool, caller: Caller) -> _Result:
        """A call's own thread does little at once; of what takes longer, each owner has one piece done at a time."""
        if is_little:
            return work()
        return caller.result_of(self._tokenizing.submit(caller.flow, work))
