"""Numbers and lists that a request only claims: each is refused before it costs anything, whichever field it is in."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import pytest
from grpc_health.v1 import health_pb2

from attack.victim import ATTACKER, Victim, standing_by, victim
from fuzz.extremes import extremes
from fuzz.rpcs import ALLOWED, NEVER_ANSWERED, ROWS, RPCS, right_requests, send
from support.servers.polling import wait_until
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests, status
from transparent_llm.wire._gen import service_pb2, tensor_pb2

pytestmark = pytest.mark.measured

WITHIN_S = 2.0
"""Every refusal, and every answer to so small a run."""

DEADLINE_S = 60.0
LONG_TEXT = "sentences.sentences: one "
"""Is bounded where it is tokenized, and attacked with the tokenizer."""

SERVICE = "transparent_llm.v1.TransparentLlmService"
LONGEST_MESSAGE = 520
"""What is told of a refusal, whatever it quotes."""


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim() as started:
        yield started


@contextmanager
def channel_to(attacked: Victim) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(attacked.address, [("grpc.max_send_message_length", 2**23)]) as channel:
        yield channel


def run_of(channel: grpc.Channel, attacked: Victim) -> str:
    run = channel.unary_unary(f"/{SERVICE}/Run", response_deserializer=service_pb2.RunResponse.FromString)
    request = requests.run(RunInput.of_tokens(ROWS), "").SerializeToString()
    return str(run(request, timeout=DEADLINE_S, metadata=attacked.metadata()).run_id)


@pytest.mark.parametrize("axes", [300, 120_000, 399_000])
def test_a_tensor_that_claims_many_long_axes_is_refused_at_once(attacked: Victim, axes: int) -> None:
    request = service_pb2.UnembedRequest(t={"dtype": tensor_pb2.DTYPE_F32, "shape": [2**63] * axes})
    data = request.SerializeToString()
    with standing_by(attacked) as bystander, channel_to(attacked) as channel:
        began = time.monotonic()
        error = send(channel, f"{SERVICE}.Unembed", data, DEADLINE_S, attacked.metadata())
        took_s = time.monotonic() - began
        wait_until(lambda: len(bystander.reads_s) > 150)
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    print(f"{len(data) / 2**20:.1f} MiB, {axes} axes: refused after {took_s * 1000:.0f} ms")
    assert took_s < 1.0


def test_no_field_of_any_request_costs_more_than_it_should(attacked: Victim) -> None:
    """One that is extreme at a time; never a fault of the server, never a refusal that does not arrive whole."""
    slowest, count, wrong = (0.0, ""), 0, []
    with attacked.client(ATTACKER) as llm:
        d_model = llm.model_info().d_model
    with standing_by(attacked), channel_to(attacked) as channel:
        for name in sorted(RPCS.keys() - NEVER_ANSWERED):
            right = right_requests(name, run_of(channel, attacked), d_model)
            for what, data in (extreme for one in right for extreme in extremes(one)):
                if what.startswith(LONG_TEXT):
                    continue
                began = time.monotonic()
                error = send(channel, name, data, DEADLINE_S, attacked.metadata())
                took_s = time.monotonic() - began
                slowest, count = max(slowest, (took_s, f"{name} with {what}")), count + 1
                wants_many = error is None and "max_chunk_bytes" in what  # messages, and gets them
                if (fault := fault_of(error, attacked.address)) or (took_s > WITHIN_S and not wants_many):
                    wrong.append(f"{name} with {what}: {fault} after {took_s:.2f} s")
            run_of(channel, attacked)  # it may be released by now
    print(f"{count} requests, the slowest {slowest[0]:.2f} s: {slowest[1]}")
    assert not wrong, "\n".join(wrong)
    assert count > 900


def fault_of(error: grpc.RpcError | None, target: str) -> str:
    """What is wrong with how a call ended; empty if nothing is."""
    if error is None:
        return ""
    if error.code() not in ALLOWED:
        return f"{error.code()}: {error.details()}"
    told = status.from_rpc_error(error, target)
    of_service = any(key == status.DETAILS_KEY for key, _ in error.trailing_metadata() or ())
    if of_service and len(told.message) > LONGEST_MESSAGE:
        return f"{len(told.message)} characters"
    return (
        ""
        if of_service or error.code() in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNIMPLEMENTED)
        else (f"no details: {error.code()} {error.details()}")
    )


@pytest.mark.parametrize("rows", [2_000_000, 100_000])
def test_many_empty_rows_of_tokens_are_counted_and_refused(attacked: Victim, rows: int) -> None:
    batch = service_pb2.RunRequest(tokens={})
    data = batch.SerializeToString()[:-1] + length_of(2 * rows) + b"\x0a\x00" * rows
    with standing_by(attacked) as bystander, channel_to(attacked) as channel:
        began = time.monotonic()
        error = send(channel, f"{SERVICE}.Run", data, DEADLINE_S, attacked.metadata())
        took_s = time.monotonic() - began
        wait_until(lambda: len(bystander.reads_s) > 150)
    assert error is not None
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    print(f"{rows} rows in {len(data) / 2**20:.1f} MiB: refused after {took_s * 1000:.0f} ms")
    assert took_s < WITHIN_S


def test_names_that_somebody_made_up_are_not_kept_by_the_health_service(attacked: Victim) -> None:
    with standing_by(attacked), channel_to(attacked) as channel:
        for number in range(1000):
            watched = health_pb2.HealthCheckRequest(service=f"{number}" + "x" * 60_000).SerializeToString()
            assert send(channel, "grpc.health.v1.Health.Watch", watched, DEADLINE_S, attacked.metadata()) is None


def length_of(size: int) -> bytes:
    """As a varint."""
    encoded = bytearray()
    while size > 0x7F:
        encoded.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*encoded, size])


def test_an_answer_in_messages_of_a_byte_is_refused(attacked: Victim) -> None:
    with attacked.client(ATTACKER) as llm, channel_to(attacked) as channel:
        llm.run_tokens([list(range(1, 101))])
        run_id = llm.run_id()
        request = service_pb2.DecomposedAttnRequest(run_id=run_id, batch_i=0, layer=0, options={"max_chunk_bytes": 1})
        error = send(channel, f"{SERVICE}.DecomposedAttn", request.SerializeToString(), DEADLINE_S, attacked.metadata())
    assert error is not None
    refused = status.from_rpc_error(error, attacked.address)
    assert (refused.reason, refused.metadata["allowed"]) == ("TOO_LARGE", str(2**14))
