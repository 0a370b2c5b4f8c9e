"""A client whose server lies raises errors of its own kind or returns what was asked for, in bounded time and memory.

All is in one process, so what the lies themselves take counts too.
"""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from google.protobuf import any_pb2, message_factory
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode
from hypothesis import given
from hypothesis import strategies as st

from attack.lying_server import Fails, LyingServer, Messages, lying
from fuzz.extremes import extremes
from fuzz.requests import damaged
from fuzz.rpcs import RPCS
from support.examples import the_same_every_time
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InternalError, TransparentLlmError
from transparent_llm.runtime.run_warning import RunWarning
from transparent_llm.wire import status
from transparent_llm.wire._gen import service_pb2, tensor_pb2

ROWS = [[1, 2, 3, 4], [5, 6]]
TIMEOUT_S = 2.0
WITHIN_S = TIMEOUT_S + 3.0
MOST_BYTES = 400 * 2**20
"""Of memory that a lie may cost, twenty times what an honest answer does."""

READS: dict[str, Callable[[RemoteTransparentLlm], Any]] = {
    "ServerInfo": lambda llm: (llm.server_info(), llm.describe())[0],
    "ModelInfo": lambda llm: llm.model_info(),
    "Run": lambda llm: (llm.run_tokens(ROWS), llm.tokens(), llm.mask())[1:],
    "ReleaseRun": lambda llm: llm.release(),
    "TokensToStrings": lambda llm: llm.tokens_to_strings(torch.tensor([1, 2, 3])),
    "Logits": lambda llm: llm.logits(),
    "Unembed": lambda llm: llm.unembed(torch.ones(64), normalize=True),
    "TopTokens": lambda llm: llm.vector_tokens(torch.ones(64), normalize=True, k=3, bottom_k=2),
    "CompareRuns": lambda llm: llm.compare(llm),
    "KeepVector": lambda llm: llm.keep_vector("a", torch.ones(64)).digest,
    "ListVectors": lambda llm: llm.kept_vectors(),
    "Dataset": lambda llm: {type(each) for each in llm.dataset("words")},
    "DropVector": lambda llm: llm.drop_vector("b"),
    "ResidualIn": lambda llm: llm.residual_in(1),
    "ResidualAfterAttn": lambda llm: llm.residual_after_attn(1),
    "ResidualOut": lambda llm: llm.residual_out(1),
    "FfnOut": lambda llm: llm.ffn_out(1),
    "DecomposedFfnOut": lambda llm: llm.decomposed_ffn_out(0, 1, 2),
    "NeuronActivations": lambda llm: llm.neuron_activations(0, 1, 2),
    "NeuronOutput": lambda llm: llm.neuron_output(1, 7),
    "NeuronOutputs": lambda llm: llm.decomposed_ffn_out(0, 1, 3),
    "HeadWeights": lambda llm: llm.head_weights(1, 2),
    "CompositionScores": lambda llm: llm.composition_scores("k", layers=slice(0, 1)).scores,
    "CopyingScores": lambda llm: llm.copying_scores().scores,
    "AttentionMatrix": lambda llm: llm.attention_matrix(0, 1, 2),
    "AttentionOutput": lambda llm: llm.attention_output(0, 1, 2, 3),
    "DecomposedAttn": lambda llm: llm.decomposed_attn(0, 1),
    "Fetch": lambda llm: llm.fetch([("decomposed_attn", 0, 0), "logits", ("decomposed_ffn_out", 0, 1, 1), "tokens"]),
    "Plan": lambda llm: llm.plan([("decomposed_attn", 0, 0), "logits", ("decomposed_ffn_out", 0, 1, 1), "tokens"]),
    "Check": lambda llm: llm.is_serving(),
}
"""What is called, by the RPC that brings it."""

BY_NAME = {rpc.name: rpc for rpc in RPCS.values()}
STREAMS = [name for name in READS if BY_NAME[name].server_streaming]


@pytest.fixture(scope="module")
def liar() -> Iterator[LyingServer]:
    with running(datasets=(f"words={__file__}",)) as honest, lying(honest.address) as server:
        yield server


def opened(liar: LyingServer, **settings: Any) -> RemoteTransparentLlm:
    """A client that has not been lied to yet, of a run."""
    liar.lie = lambda _, messages: messages
    usual = {"timeout_s": TIMEOUT_S, "shared_memory": False, "progress": False}
    llm = RemoteTransparentLlm(liar.address, **{**usual, **settings})
    llm.run_tokens(ROWS)
    llm.decomposed_attn(1, 0)  # now it knows the model
    return llm


def form(result: Any) -> Any:
    """Types and shapes of what came."""
    if isinstance(result, torch.Tensor):
        return tuple(result.shape), result.dtype
    if isinstance(result, list | tuple) and not hasattr(result, "name"):
        return [form(each) for each in result]
    return type(result)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")


class Told:
    """How the client takes lies: what it may do, and what it did."""

    def __init__(self, liar: LyingServer, name: str, **settings: Any) -> None:
        self._liar, self._name, self._settings = liar, name, settings
        with opened(liar, **settings) as llm:
            self._honest = form(READS[name](llm))
        self.outcomes: list[str] = []
        self.slowest_s = 0.0
        self.grown_bytes = 0

    def take(self, lie: Callable[[Messages], Messages], what: object) -> str:
        """Tell a lie in answer to the RPC of this name, and nothing but the truth in all others."""
        with opened(self._liar, **self._settings) as llm:
            self._liar.lie = lambda rpc, messages: lie(messages) if rpc == self._name else messages
            began, before = time.monotonic(), resident_bytes()
            result, error = self._read(llm)
            took_s = time.monotonic() - began
        if error is None:
            assert form(result) == self._honest, f"{what}: {form(result)} for {self._honest}"
        else:
            assert len(str(error)) < 1000, what
            assert error.retry_after_s is None or 0 <= error.retry_after_s <= 3600, what
        assert took_s < WITHIN_S, f"{what}: {took_s:.1f} s"
        assert resident_bytes() - before < MOST_BYTES, what
        self.slowest_s, self.grown_bytes = max(self.slowest_s, took_s), resident_bytes() - before
        self.outcomes.append("taken" if error is None else type(error).__name__)
        return self.outcomes[-1]

    def _read(self, llm: RemoteTransparentLlm) -> tuple[Any, TransparentLlmError | None]:
        try:
            with warnings.catch_warnings(action="ignore", category=RunWarning):  # a server may warn of a run
                return READS[self._name](llm), None
        except TransparentLlmError as error:
            return None, error


# Every field at its extreme


@pytest.mark.parametrize("name", [name for name in READS if not BY_NAME[name].server_streaming])
def test_no_field_of_an_answer_brings_anything_but_errors_of_ours(name: str, liar: LyingServer) -> None:
    told, kind = Told(liar, name), message_factory.GetMessageClass(BY_NAME[name].output_type)
    for what, lie in extremes(kind.FromString(honest(liar, name)[0])):
        told.take(lambda _, lie=lie: [lie], f"{name}: {what}")  # type: ignore[misc]
    print(f"{name}: {len(told.outcomes)} lies, {told.outcomes.count('taken')} taken, slowest {told.slowest_s:.2f} s")


def honest(liar: LyingServer, name: str) -> Messages:
    """What is answered by one that does not lie."""
    found: list[Messages] = []
    with opened(liar) as llm:
        liar.lie = lambda rpc, messages: (found.append(messages) if rpc == name else None, messages)[1]
        READS[name](llm)
    return found[0]


@pytest.mark.parametrize("name", STREAMS)
def test_no_field_of_a_streams_message_brings_anything_but_errors_of_ours(name: str, liar: LyingServer) -> None:
    told, message = Told(liar, name), tensor_pb2.TensorChunk.FromString(honest(liar, name)[0])
    for what, lie in extremes(message):
        told.take(lambda messages, lie=lie: [lie, *messages[1:]], f"{name}: {what}")  # type: ignore[misc]
    print(f"{name}: {len(told.outcomes)} lies, {told.outcomes.count('taken')} taken, slowest {told.slowest_s:.2f} s")


# Lies that fit themselves


def chunk(name: str, dtype: int, shape: list[int], dims: list[str], data: bytes, etag: str = "e") -> bytes:
    header = {"name": name, "dtype": dtype, "shape": shape, "dims": dims, "total_bytes": len(data), "etag": etag}
    return bytes(tensor_pb2.TensorChunk(header=header, data=data).SerializeToString())


def another(message: bytes, **fields: Any) -> bytes:
    """A message with other fields in its header."""
    made = tensor_pb2.TensorChunk.FromString(message)
    for name, value in fields.items():
        if isinstance(value, list):
            made.header.ClearField(name)
            getattr(made.header, name).extend(value)
        else:
            setattr(made.header, name, value)
    return bytes(made.SerializeToString())


def reshaped(message: bytes) -> bytes:
    head = tensor_pb2.TensorChunk.FromString(message).header
    return another(message, shape=[*head.shape[:-1], 1, head.shape[-1]], dims=[*head.dims[:-1], "more", head.dims[-1]])


def longer(message: bytes) -> bytes:
    """As it was, and as much again along its last axis."""
    made = tensor_pb2.TensorChunk.FromString(message)
    made.header.shape[-1] *= 2
    made.header.total_bytes *= 2
    made.data = made.data * 2
    return bytes(made.SerializeToString())


STREAM_LIES: dict[str, Callable[[Messages], Messages]] = {
    "nothing": lambda _: [],
    "no message": lambda messages: [b"\xff\xff", *messages],
    "the first message twice": lambda messages: [messages[0], *messages],
    "all of it twice": lambda messages: [*messages, *messages],
    "less": lambda messages: messages[:-1],
    "another name": lambda messages: [another(messages[0], name="residual_middle"), *messages[1:]],
    "a factor's name": lambda messages: [another(messages[0], name="decomposed_attn.gain"), *messages[1:]],
    "integers": lambda messages: [another(messages[0], dtype=tensor_pb2.DTYPE_I32), *messages[1:]],
    "one axis more": lambda messages: [reshaped(messages[0]), *messages[1:]],
    "twice as long": lambda messages: [longer(messages[0]), *messages[1:]],
    "other axes": lambda messages: [
        another(messages[0], dims=["x" for _ in tensor_pb2.TensorChunk.FromString(messages[0]).header.dims]),
        *messages[1:],
    ],
    "a terabyte": lambda _: [
        another(chunk("residual_in", 9, [2, 4, 2**37], ["batch", "pos", "d_model"], b""), total_bytes=2**42)
    ],
    "headers without end": lambda messages: [messages[0]] * 10_000,
    "shared memory": lambda messages: [
        tensor_pb2.TensorChunk(
            header=tensor_pb2.TensorChunk.FromString(messages[0]).header, shared={"slot": 2**32 - 1, "size": 8}
        ).SerializeToString()
    ],
}


@pytest.mark.parametrize("what", STREAM_LIES)
@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_of_something_else_is_refused(name: str, what: str, liar: LyingServer) -> None:
    outcome = Told(liar, name).take(STREAM_LIES[what], what)
    assert outcome in ("InternalError", "UnavailableError")


@pytest.mark.parametrize("name", ["DecomposedAttn", "Fetch"])
def test_factors_do_not_become_more_than_the_run_and_the_model_say(name: str, liar: LyingServer) -> None:
    """Two megabytes of factors that would become four gigabytes."""
    n, wide = 500, 2000
    pattern = chunk("decomposed_attn.pattern", 9, [1, n, n], ["head", "target", "source"], bytes(4 * n * n))
    value_out = chunk("decomposed_attn.value_out", 9, [n, 1, wide], ["source", "head", "d_model"], bytes(4 * n * wide))
    assert Told(liar, name).take(lambda _: [pattern, value_out], "factors") == "InternalError"


@pytest.mark.parametrize(
    "spans",
    [[[0, 256]], [[-1, 255]], [[0, 128], [64, 192]], [[300, 556]], [[256, 0]], [[2**62, 2**62 + 256]], []],
    ids=str,
)
def test_spans_of_neurons_that_are_not_theirs_are_refused(spans: list[list[int]], liar: LyingServer) -> None:
    def lie(messages: Messages) -> Messages:
        data = torch.tensor(spans, dtype=torch.int64).reshape(-1, 2).numpy().tobytes()
        etag = tensor_pb2.TensorChunk.FromString(messages[0]).header.etag
        sent = chunk("decomposed_ffn_out.spans", tensor_pb2.DTYPE_I64, [len(spans), 2], ["span", "bound"], data, etag)
        return [messages[0], sent]

    outcome = Told(liar, "DecomposedFfnOut").take(lie, spans)
    assert outcome == ("taken" if spans == [[0, 256]] else "InternalError")


# How calls fail


def details(*held: Any, domain: str = status.DOMAIN, reason: str = "LOADING") -> bytes:
    made = status_pb2.Status(code=14, message="loading")
    info = error_details_pb2.ErrorInfo(reason=reason, domain=domain, metadata={"model": "tiny"})
    made.details.add().Pack(info)
    for each in held:
        made.details.append(each)
    return bytes(made.SerializeToString())


def retry(seconds: int, nanos: int = 0) -> any_pb2.Any:
    info, packed = error_details_pb2.RetryInfo(), any_pb2.Any()
    info.retry_delay.seconds, info.retry_delay.nanos = seconds, nanos
    packed.Pack(info)
    return packed


GARBAGE = any_pb2.Any(type_url="type.googleapis.com/google.rpc.RetryInfo", value=b"\xff\xff\xff")
DETAILS = {
    "none": None,
    "garbage": b"\xff\xfe",
    "empty": b"",
    "of others": details(domain="elsewhere"),
    "no time": details(),
    "a time that is garbage": details(GARBAGE),
    "a negative time": details(retry(-5)),
    "negative nanoseconds": details(retry(0, -(2**31))),
    "no time at all": details(retry(0)),
    "too many nanoseconds": details(retry(1, 2**31 - 1)),
    "ages": details(retry(2**62)),
    "ages ago": details(retry(-(2**63))),
    "twice": details(retry(0, 1), GARBAGE, retry(2**63 - 1)),
    "a reason that nobody knows": details(retry(1), reason="\x1b[31mRED"),
}


@pytest.mark.parametrize("what", DETAILS)
@pytest.mark.parametrize("name", ["ModelInfo", "Logits"])
def test_a_failure_with_any_details_is_an_error_of_ours(name: str, what: str, liar: LyingServer) -> None:
    told = Told(liar, name, timeout_s=1.0)
    for code in (StatusCode.UNAVAILABLE, StatusCode.INTERNAL, StatusCode.RESOURCE_EXHAUSTED):

        def lie(_: Messages, code: StatusCode = code) -> Messages:
            raise Fails(code, DETAILS[what])

        assert told.take(lie, f"{code} with {what}") != "taken"


@pytest.mark.parametrize("code", [code for code in StatusCode if code is not StatusCode.OK], ids=lambda code: code.name)
def test_every_status_is_an_error_of_ours(code: StatusCode, liar: LyingServer) -> None:
    def lie(_: Messages) -> Messages:
        raise Fails(code, None, "\x1b[31m" + "words " * 100)

    for name in ("Run", "ResidualIn"):
        assert Told(liar, name, timeout_s=1.0).take(lie, code) != "taken"


# Anything


@pytest.mark.parametrize("name", READS)
def test_any_damage_is_an_error_of_ours_or_none(name: str, liar: LyingServer, is_long: bool) -> None:
    told, truth = Told(liar, name), honest(liar, name)

    @the_same_every_time(300 if is_long else 10)
    @given(st.data())
    def tell(data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(truth) - 1))
        lie = [*truth[:at], data.draw(damaged(truth[at])), *truth[at + 1 :]]
        told.take(lambda _: lie, "damage")

    tell()
    print(f"{name}: {len(told.outcomes)} lies, {told.outcomes.count('taken')} taken, slowest {told.slowest_s:.2f} s")
    assert len(told.outcomes) > 5


@pytest.mark.parametrize("sentences", [[], ["a", ""], ["a"] * 1001])
def test_a_data_set_that_no_server_may_send(liar: LyingServer, sentences: list[str]) -> None:
    with opened(liar) as llm:
        lie = [service_pb2.DatasetResponse(sentences=sentences).SerializeToString()]
        liar.lie = lambda rpc, messages: iter(lie) if rpc == "Dataset" else messages
        with pytest.raises(InternalError, match=f"a data set of {len(sentences)} sentences"):
            llm.dataset("words")
