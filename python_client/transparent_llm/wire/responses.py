"""What the calls that are answered with one message were answered, as plain values; streams are for `Assembler`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from google.protobuf.message import DecodeError, Message

from transparent_llm.contract import ModelInfo
from transparent_llm.description import MOST_SENTENCES, OwnerUsage, ServerInfo, StoredRun, StoredRuns
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Intervention, RowComparison
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.quoting import quoted
from transparent_llm.run_input import RunInput
from transparent_llm.wire import health, kept_vectors, model, runs
from transparent_llm.wire._gen import admin_pb2, service_pb2
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.headers import Header
from transparent_llm.wire.protocol_error import ProtocolError
from transparent_llm.wire.runs import RunResult
from transparent_llm.wire.shape import ShapeError

_Message = TypeVar("_Message", bound=Message)
_MOST_VECTORS = 2**16


def server_info(data: bytes) -> ServerInfo:
    """What a server says about itself. Raises `ProtocolError` as all functions here do: it is no answer to that."""
    return model.server_from_wire(_parsed(service_pb2.ServerInfoResponse, data))


def stored_runs(data: bytes) -> StoredRuns:
    """Runs that the server keeps."""
    response = _parsed(admin_pb2.ListRunsResponse, data)
    runs_of = tuple(
        StoredRun(run.run_id, run.owner, run.model, run.bytes, run.age_seconds, run.idle_seconds)
        for run in response.runs
    )
    return StoredRuns(runs_of, response.total, response.total_bytes)


def owners(data: bytes) -> tuple[OwnerUsage, ...]:
    """Who uses the server."""
    return tuple(
        OwnerUsage(
            owner.owner,
            owner.waiting_runs,
            owner.stored_runs,
            owner.stored_run_bytes,
            {usage.quota: (usage.used, usage.allowed if usage.HasField("allowed") else None) for usage in owner.usage},
        )
        for owner in _parsed(admin_pb2.ListOwnersResponse, data).owners
    )


def drained(data: bytes) -> None:
    """The server ends."""
    _parsed(admin_pb2.DrainResponse, data)


def is_serving(data: bytes) -> bool:
    """Whether the health service called the server SERVING."""
    status: int = _parsed(health.HealthCheckResponse, data).status  # type: ignore[attr-defined]  # made at run time
    return status == health.SERVING


def model_info(data: bytes) -> ModelInfo:
    """The shape of a model."""
    return model.info_from_response(_parsed(service_pb2.ModelInfoResponse, data))


def run(data: bytes, run_input: RunInput, edits: Sequence[Intervention] = ()) -> RunResult:
    """The run of this input with these edits."""
    return runs.from_response(_parsed(service_pb2.RunResponse, data), run_input, edits)


def comparisons(data: bytes, n_pos: Sequence[int]) -> tuple[RowComparison, ...]:
    """What rows of two runs differ in, with so many positions of each."""
    return runs.comparisons_from_response(_parsed(service_pb2.CompareRunsResponse, data), n_pos)


def kept(data: bytes, digest: str) -> None:
    """A vector with this digest is kept."""
    got = _parsed(service_pb2.KeepVectorResponse, data).digest
    if got != digest:
        raise ProtocolError(f"a vector of digest {digest} was sent, and {quoted(got)} is kept")


def vectors(data: bytes) -> tuple[KeptVector, ...]:
    """Vectors that are kept."""
    found = _parsed(service_pb2.ListVectorsResponse, data).vectors
    if len(found) > _MOST_VECTORS:
        raise ProtocolError(f"{len(found)} vectors that are kept")
    try:
        return kept_vectors.kept_from_wire(found)
    except (InvalidRequestError, ShapeError) as error:
        raise ProtocolError(f"a kept vector that is none: {error}") from None


def sentences(data: bytes) -> list[str]:
    """Of a data set."""
    found = list(_parsed(service_pb2.DatasetResponse, data).sentences)
    if not 0 < len(found) <= MOST_SENTENCES or not all(found):
        raise ProtocolError(f"a data set of {len(found)} sentences; it has 1 to {MOST_SENTENCES}, and none is empty")
    return found


def dropped(data: bytes) -> bool:
    """Whether there was such a vector."""
    return _parsed(service_pb2.DropVectorResponse, data).dropped


def released(data: bytes) -> bool:
    """Whether there was such a run."""
    return _parsed(service_pb2.ReleaseRunResponse, data).released


def strings(data: bytes, count: int) -> list[str]:
    """The text of so many tokens."""
    return runs.strings_from_response(_parsed(service_pb2.TokensToStringsResponse, data), count)


def tokenized(data: bytes) -> tuple[list[int], list[str]]:
    """The token ids of a text, and the text of each."""
    return runs.tokenized_from_response(_parsed(service_pb2.TokenizeResponse, data))


def top_tokens(data: bytes, k: int, bottom_k: int) -> tuple[list[int], list[float], list[int], list[float], float]:
    """So many of the best and of the worst tokens with their logits, and the logsumexp of all."""
    found = _parsed(service_pb2.TopTokensResponse, data)
    top, bottom = list(found.top_ids), list(found.bottom_ids)
    counts = (len(top), len(found.top_logits), len(bottom), len(found.bottom_logits))
    if counts != (k, k, bottom_k, bottom_k) or min([0, *top, *bottom]) < 0:
        raise ProtocolError(f"{counts} best and worst tokens and logits for {k} and {bottom_k}, or a negative token id")
    return top, list(found.top_logits), bottom, list(found.bottom_logits), found.logsumexp


def plan(data: bytes, expected: Sequence[Expected]) -> list[Header]:
    """The headers of the tensors that a fetch of these values would bring."""
    answer, place, headers = Answer(expected), None, []
    for head in _parsed(service_pb2.PlanResponse, data).tensors:
        place, header = answer.follow(place, head)
        headers.append(header)
    answer.require_whole(place)
    return headers


def _parsed(kind: type[_Message], data: bytes) -> _Message:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ProtocolError(f"{len(data)} bytes that are not a valid {kind.DESCRIPTOR.name}: {error}") from None
