"""Generations on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from transparent_llm.errors import InvalidRequestError
from transparent_llm.generation import (
    MOST_MESSAGES,
    MOST_TOKENS,
    Chat,
    Finished,
    GenerationSettings,
    NextToken,
    Prompts,
    Step,
    require_few,
)
from transparent_llm.interventions import Intervention
from transparent_llm.run_input import RunInput
from transparent_llm.wire import interventions
from transparent_llm.wire._gen import generation_pb2 as pb
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.interventions import Named, require_known
from transparent_llm.wire.protocol_error import ProtocolError

_LONGEST_TOKEN, _LONGEST_ID = 1000, 256
"""Characters that are kept of a token of an answer; those of what names a run, at the most."""

_PROMPTS = pb.GenerateRequest.DESCRIPTOR.fields_by_name["prompts"].number

_REASONS: dict[Finished, int] = {
    "stop": pb.FINISH_REASON_STOP,
    "length": pb.FINISH_REASON_LENGTH,
    "eos": pb.FINISH_REASON_EOS,
}
_FINISHED = {number: finished for finished, number in _REASONS.items()}


def to_wire(
    prompts: Prompts,
    settings: GenerationSettings,
    edits: Sequence[Intervention],
    model: str,
    run_id_of: Named,
) -> pb.GenerateRequest:
    """A request.

    Raises:
        InvalidRequestError: too many edits, or a vector of a type that does not travel.
    """
    request = pb.GenerateRequest(
        model=model,
        max_new_tokens=settings.max_new_tokens,
        temperature=settings.temperature,
        top_k=min(settings.top_k or 0, MOST_TOKENS),
        top_p=settings.top_p,
        seed=settings.seed,
        stop_strings=settings.stop_strings,
        stop_token_ids=settings.stop_token_ids,
        edits=interventions.to_wire(edits, run_id_of),
        top_logprobs=settings.top_logprobs,
    )
    if isinstance(prompts, Chat):
        request.messages.extend(pb.ChatMessage(role=role, content=content) for role, content in prompts.messages)
    elif prompts.token_ids is not None:
        request.prompts.extend(pb.Prompt(tokens=pb.TokenRow(token_ids=row)) for row in prompts.token_ids)
    else:
        request.prompts.extend(pb.Prompt(text=sentence) for sentence in prompts.sentences or ())
    return request


def n_entries(data: bytes, most: int) -> int:
    """How many prompts and messages, and fields beside them, a serialized request has; no more than `most` are
    counted."""
    return count_entries(data, (_PROMPTS,), most)


def text_bytes(request: pb.GenerateRequest) -> int:
    """How long the texts of its prompts are together, in UTF-8."""
    of_messages = sum(len(each.role.encode()) + len(each.content.encode()) for each in request.messages)
    return of_messages + sum(len(prompt.text.encode()) for prompt in request.prompts)


def n_tokens(request: pb.GenerateRequest) -> int:
    """How many positions its rows of token ids take, padded to the longest."""
    return len(request.prompts) * max((len(prompt.tokens.token_ids) for prompt in request.prompts), default=0)


def prompts_from_wire(request: pb.GenerateRequest) -> Prompts:
    """With what a request begins.

    Raises:
        InvalidRequestError: none, an absent one, or several kinds of them.
        TooLargeError: too many messages.
    """
    if request.messages and not request.prompts:
        require_few("messages of a chat", len(request.messages), MOST_MESSAGES)
        return Chat(tuple((each.role, each.content) for each in request.messages))
    kinds = {"messages"} if request.messages else set()
    kinds |= {prompt.WhichOneof("prompt") for prompt in request.prompts}
    if kinds == {"text"}:
        return RunInput(sentences=tuple(prompt.text for prompt in request.prompts))
    if kinds == {"tokens"}:
        return RunInput(token_ids=tuple(tuple(prompt.tokens.token_ids) for prompt in request.prompts))
    if not kinds:
        raise InvalidRequestError("a generation has no prompts: give at least one", reason="EMPTY_INPUT")
    raise InvalidRequestError("prompts of a generation are all text or all token ids, and there are no messages then")


def settings_from_wire(request: pb.GenerateRequest) -> GenerationSettings:
    """How a request wants tokens.

    Raises:
        InvalidRequestError: something makes no sense, or is unknown.
        TooLargeError: too many or too long stops, or too many top_logprobs.
    """
    require_known(request)
    return GenerationSettings(
        request.max_new_tokens,
        request.temperature,
        request.top_k or None,
        request.top_p if request.HasField("top_p") else None,
        request.seed,
        tuple(request.stop_strings),
        tuple(request.stop_token_ids),
        request.top_logprobs,
    )


def step_to_wire(step: Step) -> bytes:
    """One message of an answer, serialized."""
    answer = pb.GenerateResponse()
    for row, token in enumerate(step.tokens):
        if token is not None:
            answer.tokens.add(
                row=row,
                token_id=token.token_id,
                text=token.text,
                logprob=token.logprob,
                finished=0 if token.finished is None else _REASONS[token.finished],
                top_ids=token.top_ids,
                top_logprobs=token.top_logprobs,
            )
    data: bytes = answer.SerializeToString()
    return data


def run_to_wire(run_id: str, rows: Sequence[Sequence[int]]) -> bytes:
    """The last message of an answer, serialized."""
    rows_of = [pb.TokenRow(token_ids=row) for row in rows]
    data: bytes = pb.GenerateResponse(run=pb.GeneratedRun(run_id=run_id, rows=rows_of)).SerializeToString()
    return data


@dataclass
class Arrived:
    """What has come of one answer, held to what was asked for."""

    prompts: Prompts
    settings: GenerationSettings

    def __post_init__(self) -> None:
        rows = None if isinstance(self.prompts, Chat) else self.prompts.token_ids
        n_rows = 1 if isinstance(self.prompts, Chat) else len(rows or self.prompts.sentences or ())
        self.tokens: list[list[int]] = [[] for _ in range(n_rows)]
        """New ones of each row."""

        self._begins = rows
        self._going_on = set(range(n_rows))
        self.rows: tuple[tuple[int, ...], ...] | None = None
        """Of the run, when it is there."""

        self.run_id = ""

    @property
    def n_steps(self) -> int:
        """That have come."""
        return max(map(len, self.tokens), default=0)

    def take(self, data: bytes) -> Step | None:
        """The step of a message; None for the last one, which has the run.

        Raises:
            ProtocolError: it is no answer to this request.
        """
        try:
            message = pb.GenerateResponse.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"its answer cannot be parsed: {error}") from None
        if self.rows is not None or message.HasField("run") == bool(self._going_on):
            raise ProtocolError("a run before the last token, or a token after it")
        if message.HasField("run"):
            self._take_run(message.run)
            return None
        if {token.row for token in message.tokens} != self._going_on or len(message.tokens) != len(self._going_on):
            raise ProtocolError("a step that has not one token of each row that is not finished")
        found: list[NextToken | None] = [None] * len(self.tokens)
        for token in message.tokens:
            found[token.row] = self._token(token)
        return Step(tuple(found))

    def _token(self, message: pb.GeneratedToken) -> NextToken:
        n_top, finished = len(message.top_ids), _FINISHED.get(message.finished)
        if message.token_id < 0 or n_top > self.settings.top_logprobs or n_top != len(message.top_logprobs):
            raise ProtocolError(f"token {message.token_id} with {n_top} likeliest ones")
        of_row = self.tokens[message.row]
        of_row.append(message.token_id)
        if finished is not None:
            self._going_on.discard(message.row)
        elif message.finished or len(of_row) >= self.settings.max_new_tokens:
            raise ProtocolError(f"{len(of_row)} tokens of a row, and it is not finished")
        text, top = message.text[:_LONGEST_TOKEN], (tuple(message.top_ids), tuple(message.top_logprobs))
        return NextToken(message.token_id, text, message.logprob, finished, *top)

    def _take_run(self, run: pb.GeneratedRun) -> None:
        rows = tuple(tuple(row.token_ids) for row in run.rows)
        if len(rows) != len(self.tokens) or not run.run_id or len(run.run_id) > _LONGEST_ID:
            raise ProtocolError(f"a run of {len(rows)} rows for {len(self.tokens)} that were sent")
        for n, (row, new) in enumerate(zip(rows, self.tokens, strict=True)):
            begin = row[: len(row) - len(new) + 1]
            is_other = self._begins is not None and begin != self._begins[n]
            if not begin or min(row) < 0 or is_other or list(row[len(begin) :]) != new[:-1]:
                raise ProtocolError(f"row {n} of the run is not the prompt and what was generated")
        self.rows, self.run_id = rows, run.run_id
