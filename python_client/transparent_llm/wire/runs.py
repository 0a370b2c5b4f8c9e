"""Runs on the wire: what a request for one asks for, and the answer to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import EditEffect, Intervention, RowComparison
from transparent_llm.quoting import quoted
from transparent_llm.run_input import RunInput
from transparent_llm.wire import digests, interventions
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.protocol_error import ProtocolError

_MOST_WARNINGS, _LONGEST_WARNING = 16, 2000
_LONGEST_ID = 256
"""Characters of what names a run or a model: it is sent back with every read."""

_LONGEST_TOKEN = 1000
"""Characters of a token that are kept of an answer."""


_INPUT_FIELDS = tuple(field.number for field in service_pb2.RunRequest.DESCRIPTOR.oneofs_by_name["input"].fields)


def n_entries(data: bytes, most: int) -> int:
    """How many rows, and fields beside them, a serialized request has; no more than `most` are counted."""
    return count_entries(data, _INPUT_FIELDS, most)


def n_sentences(request: service_pb2.RunRequest) -> int:
    """How many rows a request has, of text or of tokens."""
    return len(request.tokens.sequences) or len(request.sentences.sentences)


def text_bytes(request: service_pb2.RunRequest) -> int:
    """How long its sentences are together, in UTF-8."""
    return sum(len(sentence.encode()) for sentence in request.sentences.sentences)


def n_tokens(request: service_pb2.RunRequest) -> int:
    """How many positions its rows of tokens take, padded to the longest; 0 if it has text."""
    sequences = request.tokens.sequences
    return len(sequences) * max((len(sequence.token_ids) for sequence in sequences), default=0)


def from_request(request: service_pb2.RunRequest) -> RunInput:
    """The input in a request; one without any input has no sentences.

    Raises:
        InvalidRequestError: something is to be put before token ids.
    """
    if request.WhichOneof("input") == "tokens":
        if request.HasField("add_bos"):
            raise InvalidRequestError("add_bos is for sentences: nothing is put before token ids")
        return RunInput(token_ids=tuple(tuple(sequence.token_ids) for sequence in request.tokens.sequences))
    add_bos = request.add_bos if request.HasField("add_bos") else None
    return RunInput(sentences=tuple(request.sentences.sentences), add_bos=add_bos)


@dataclass(frozen=True)
class RunResult:
    """What a server answers to Run."""

    run_id: str
    tokens: torch.Tensor
    """[batch pos], int64."""

    mask: torch.Tensor | None
    """[batch pos], bool; None where the model does not distinguish padding from tokens."""

    token_strings: tuple[str, ...]
    """Of all tokens, row by row."""

    stored_bytes: int
    model_digest: str
    warnings: tuple[str, ...] = ()
    """What should be known before its values are believed."""

    effects: tuple[EditEffect, ...] = ()
    """What each of its edits did."""

    unedited_run_id: str = ""
    """Of a run with edits, the name of the one without them."""

    def to_wire(self) -> service_pb2.RunResponse:
        """The message that answers a request for this run."""
        return service_pb2.RunResponse(
            run_id=self.run_id,
            batch_size=self.tokens.shape[0],
            n_pos=self.tokens.shape[1],
            token_ids=self.tokens.flatten().tolist(),
            mask=self.mask.flatten().tolist() if self.mask is not None else (),
            token_strings=self.token_strings,
            stored_bytes=self.stored_bytes,
            model_digest=self.model_digest,
            warnings=self.warnings,
            effects=interventions.effects_to_wire(self.effects),
            unedited_run_id=self.unedited_run_id,
        )


def from_response(
    message: service_pb2.RunResponse, run_input: RunInput, edits: Sequence[Intervention] = ()
) -> RunResult:
    """What was answered to a request for a run of this input with these edits.

    Raises:
        ProtocolError: it contradicts itself, or is the answer to another input.
    """
    shape, count = (message.batch_size, message.n_pos), len(message.token_ids)
    if count != shape[0] * shape[1] or len(message.mask) not in (0, count) or len(message.token_strings) != count:
        raise ProtocolError(
            f"{count} tokens, {len(message.mask)} mask entries and {len(message.token_strings)} strings for "
            f"{shape[0]} rows of {shape[1]} positions"
        )
    longest = max(map(len, (message.run_id, message.unedited_run_id, message.model_digest)))
    if not message.run_id or longest > _LONGEST_ID:
        raise ProtocolError(f"no run is named {quoted(message.run_id)}, or no model {quoted(message.model_digest)}")
    if len(message.warnings) > _MOST_WARNINGS or any(len(words) > _LONGEST_WARNING for words in message.warnings):
        raise ProtocolError(f"{len(message.warnings)} warnings of a run, or one of over {_LONGEST_WARNING} characters")
    tokens = torch.tensor(message.token_ids, dtype=torch.int64).reshape(shape)
    mask = torch.tensor(message.mask, dtype=torch.bool).reshape(shape) if message.mask else None
    _require_of(run_input, tokens, mask)
    return RunResult(
        run_id=message.run_id,
        tokens=tokens,
        mask=mask,
        token_strings=tuple(message.token_strings),
        stored_bytes=message.stored_bytes,
        model_digest=digests.checked(message.model_digest),
        warnings=tuple(message.warnings),
        effects=interventions.effects_from_wire(message.effects, edits),
        unedited_run_id=message.unedited_run_id,
    )


def _require_of(run_input: RunInput, tokens: torch.Tensor, mask: torch.Tensor | None) -> None:
    rows = run_input.token_ids
    wanted = len(rows if rows is not None else run_input.sentences or ())
    if tokens.shape[0] != wanted:
        raise ProtocolError(f"{tokens.shape[0]} rows for {wanted} that were sent")
    if bool((tokens < 0).any()):
        raise ProtocolError("a negative token id")
    if rows is not None and tokens.shape[1] != max(map(len, rows), default=0):
        raise ProtocolError(f"{tokens.shape[1]} positions for rows of at most {max(map(len, rows), default=0)}")
    for i, row in enumerate(rows or ()):
        if tokens[i, : len(row)].tolist() != list(row) or (mask is not None and int(mask[i].sum()) != len(row)):
            raise ProtocolError(f"tokens in row {i} other than those sent")
    if mask is not None and bool((mask[:, 1:] & ~mask[:, :-1]).any()):
        raise ProtocolError("padding before a token: it belongs on the right")


def comparisons_to_wire(rows: Sequence[RowComparison]) -> service_pb2.CompareRunsResponse:
    """The message that answers what two runs differ in."""
    return service_pb2.CompareRunsResponse(
        rows=[
            service_pb2.RowComparison(
                kl=row.kl,
                top_id=row.top_token,
                top_string=row.top_string,
                other_top_id=row.other_top_token,
                other_top_string=row.other_top_string,
                kl_by_pos=row.kl_by_pos,
            )
            for row in rows
        ]
    )


def comparisons_from_response(
    message: service_pb2.CompareRunsResponse, n_pos: Sequence[int]
) -> tuple[RowComparison, ...]:
    """What rows differ in, with so many positions of each.

    Raises:
        ProtocolError: there are more or fewer, or a number that none can be.
    """
    if [len(row.kl_by_pos) for row in message.rows] != list(n_pos):
        raise ProtocolError(f"{len(message.rows)} rows compared of {len(n_pos)}, or other positions than asked for")
    if any(min(row.kl, *row.kl_by_pos, row.top_id, row.other_top_id) < 0 for row in message.rows):
        raise ProtocolError("a divergence below 0, or a negative token id")
    return tuple(
        RowComparison(
            *(row.kl, row.top_id, row.top_string[:_LONGEST_TOKEN]),
            *(row.other_top_id, row.other_top_string[:_LONGEST_TOKEN], tuple(row.kl_by_pos)),
        )
        for row in message.rows
    )


def strings_from_response(message: service_pb2.TokensToStringsResponse, count: int) -> list[str]:
    """The text of so many tokens.

    Raises:
        ProtocolError: there are more or fewer.
    """
    if len(message.strings) != count:
        raise ProtocolError(f"{len(message.strings)} strings for {count} tokens")
    return list(message.strings)


def tokenized_from_response(message: service_pb2.TokenizeResponse) -> tuple[list[int], list[str]]:
    """The token ids of a text, and the text of each.

    Raises:
        ProtocolError: there are more of one than of the other, or an id that is none.
    """
    ids, strings = list(message.token_ids), list(message.token_strings)
    if len(ids) != len(strings) or not ids or min(ids) < 0:
        raise ProtocolError(f"{len(strings)} strings for {len(ids)} tokens of a text, or a negative token id")
    return ids, strings
