"""What a server can say that it should not: answers that are whole in themselves, but not to what was asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from support.servers.liar import message_of
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire._gen.tensor_pb2 import TensorChunk, TensorHeader


def _another_axis(header: TensorHeader) -> None:
    header.dims[-1] = "nonsense"


def _another_name(header: TensorHeader) -> None:
    header.name = "unembed" if header.name != "unembed" else "logits"


def _another_dtype(header: TensorHeader) -> None:
    header.dtype = tensor_pb2.DTYPE_I32  # as long as the F32 that it is


def _turned(header: TensorHeader) -> None:
    header.shape[0], header.shape[1] = header.shape[1], header.shape[0]


def _an_axis_more(header: TensorHeader) -> None:
    header.shape.append(1)
    header.dims.append("more")


HEADERS: dict[str, Callable[[TensorHeader], None]] = {
    "another axis": _another_axis,
    "another name": _another_name,
    "another dtype": _another_dtype,
    "turned": _turned,
    "an axis more": _an_axis_more,
}
"""Of streams: what becomes of each header."""


def _path(digest: str) -> str:
    return f"../../{digest}"


def _run_of_a_path(run: service_pb2.RunResponse) -> None:
    run.model_digest = _path(run.model_digest)


def _other_rows(run: service_pb2.RunResponse) -> None:
    run.batch_size, run.n_pos = run.n_pos, run.batch_size


def _overflowing(run: service_pb2.RunResponse) -> None:
    run.batch_size = run.n_pos = 2**31
    del run.token_ids[:], run.mask[:], run.token_strings[:]


def _no_name(run: service_pb2.RunResponse) -> None:
    run.run_id = ""


def _models_of_paths(info: service_pb2.ServerInfoResponse) -> None:
    for model in info.models:
        model.digest = _path(model.digest)


def _padding_before_a_token(run: service_pb2.RunResponse) -> None:
    run.mask[0] = False


def _a_string_less_of_a_text(answer: service_pb2.TokenizeResponse) -> None:
    del answer.token_strings[-1]


def _a_negative_token(answer: service_pb2.TokenizeResponse) -> None:
    answer.token_ids[-1] = -1


def _no_tokens(answer: service_pb2.TokenizeResponse) -> None:
    del answer.token_ids[:], answer.token_strings[:]


def _a_string_less(answer: service_pb2.TokensToStringsResponse) -> None:
    del answer.strings[-1]


ANSWERS: dict[str, tuple[str, Callable[[Any], None]]] = {
    "a path for a digest": ("Run", _run_of_a_path),
    "other rows": ("Run", _other_rows),
    "rows past any number": ("Run", _overflowing),
    "no name": ("Run", _no_name),
    "a path for each digest": ("ServerInfo", _models_of_paths),
    "a string less": ("TokensToStrings", _a_string_less),
    "padding before a token": ("Run", _padding_before_a_token),
    "a string less of a text": ("Tokenize", _a_string_less_of_a_text),
    "a negative token": ("Tokenize", _a_negative_token),
    "no tokens": ("Tokenize", _no_tokens),
}
"""Of calls with one answer: by whom it is told, and what becomes of it."""


def message(lie: str | None, sent: bytes) -> bytes:
    """A message of a stream, as the lie has it."""
    if lie not in HEADERS:
        return sent
    chunk = TensorChunk.FromString(sent)
    if chunk.HasField("header"):
        HEADERS[lie](chunk.header)
    return chunk.SerializeToString()


def answer(lie: str | None, rpc: str, sent: Any) -> Any:
    """One answer, as the lie has it."""
    if lie not in ANSWERS or ANSWERS[lie][0] != rpc:
        return sent
    told = message_of(rpc, sent)
    ANSWERS[lie][1](told)
    return told
