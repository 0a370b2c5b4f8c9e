"""Reads of many or large values, most of them given up: others go on reading, and what was begun for nobody ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest

from attack.crowd import crowd
from attack.victim import ATTACKER, Victim, standing_by, victim
from support.servers.polling import wait_until
from support.servers.stub import stub
from transparent_llm.errors import TooLargeError
from transparent_llm.wire import status
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.fetch import MOST_ITEMS

pytestmark = pytest.mark.measured

THREADS = 16
GIVEN_UP_AFTER_S = 0.5
FACTORED = {"encoding": tensor_pb2.ENCODING_FACTORED}
LIMIT_BYTES = 4 * 2**30


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    """It may take as much memory as such a machine has."""
    with victim(before=("prlimit", f"--data={LIMIT_BYTES}")) as started:
        yield started


@contextmanager
def run_of(attacked: Victim, n_pos: int = 100, rows: int = 1) -> Iterator[tuple[Any, str]]:
    """The service's calls, and a run of the attacker's to read."""
    with attacked.client(ATTACKER) as llm, grpc.insecure_channel(attacked.address) as channel:
        llm.run_tokens([[1 + (row + pos) % 100 for pos in range(n_pos)] for row in range(rows)])
        yield stub(channel), llm.run_id()


def items_of(count: int, n_pos: int = 100) -> list[dict[str, Any]]:
    """Factored values, which are the most work for the fewest bytes of a request."""
    attn = {"decomposed_attn": {"batch_i": 0, "layer": 0, "options": FACTORED}}
    ffn = [{"decomposed_ffn_out": {"batch_i": 0, "layer": 0, "pos": p, "options": FACTORED}} for p in range(n_pos)]
    return [attn if i % 2 else ffn[i // 2 % n_pos] for i in range(count)]


@pytest.mark.parametrize("rpc", ["Plan", "Fetch"])
@pytest.mark.parametrize("count", [9_000, 25_000])
def test_more_items_than_one_request_may_have_are_refused_at_once(attacked: Victim, rpc: str, count: int) -> None:
    with run_of(attacked) as (service, run_id), standing_by(attacked) as bystander:
        request = getattr(service_pb2, f"{rpc}Request")(run_id=run_id, items=items_of(count))
        began = time.monotonic()
        with pytest.raises(grpc.RpcError) as caught:
            received(getattr(service, rpc)(request, timeout=60, metadata=attacked.metadata()))
        took_s = time.monotonic() - began
        wait_until(lambda: len(bystander.reads_s) > 150)
    refused = status.from_rpc_error(caught.value, attacked.address)
    assert isinstance(refused, TooLargeError)
    assert refused.metadata["allowed"] == str(MOST_ITEMS)
    print(f"{count} items ({request.ByteSize()} bytes): refused after {took_s * 1000:.0f} ms")
    assert took_s < 1.0


def received(answer: Any) -> list[Any]:
    return list(answer) if hasattr(answer, "__iter__") else [answer]


@pytest.mark.parametrize("rpc", ["Plan", "Fetch"])
def test_as_many_items_as_may_be_are_given_up_by_many_threads(attacked: Victim, rpc: str, is_long: bool) -> None:
    with run_of(attacked) as (_, run_id), standing_by(attacked) as bystander:
        request = getattr(service_pb2, f"{rpc}Request")(run_id=run_id, items=items_of(MOST_ITEMS))
        rounds = 10 if is_long else 2
        codes = crowd(attacked, rpc, request.SerializeToString(), THREADS, rounds, GIVEN_UP_AFTER_S)
    print(f"{codes.total()} calls of {MOST_ITEMS} items each: {dict(codes)}")
    assert len(bystander.reads_s) > 20


def test_what_many_threads_ask_for_and_leave_delays_no_read_of_another(attacked: Victim, is_long: bool) -> None:
    """400,000 items in all."""
    with run_of(attacked) as (_, run_id), standing_by(attacked):
        request = service_pb2.FetchRequest(run_id=run_id, items=items_of(25_000))
        codes = crowd(attacked, "Fetch", request.SerializeToString(), THREADS, 1, GIVEN_UP_AFTER_S)
    assert codes == {"INVALID_ARGUMENT": THREADS}


@pytest.mark.parametrize("what", ["dense attention", "logits of one token", "every 32nd position", "weights"])
def test_a_large_value_that_is_given_up_is_computed_no_further(attacked: Victim, what: str, is_long: bool) -> None:
    rpc, fields = LARGE[what]
    with run_of(attacked, n_pos=250, rows=8) as (_, run_id), standing_by(attacked) as bystander:
        request = getattr(service_pb2, f"{rpc}Request")(**fields)
        if "run_id" in request.DESCRIPTOR.fields_by_name:
            request.run_id = run_id
        crowd(attacked, rpc, request.SerializeToString(), THREADS, 6 if is_long else 2, 0.2)
        at_the_end = time.monotonic()
        with attacked.client(ATTACKER, cache_bytes=0) as llm:
            llm.run(["Done?"])  # waits for whatever the model still does
        idle_after_s = time.monotonic() - at_the_end
        wait_until(lambda: len(bystander.reads_s) > 50)
    print(f"{what}: the model was free {idle_after_s * 1000:.0f} ms after the last one left")
    assert idle_after_s < 2.0


LARGE: dict[str, tuple[str, dict[str, Any]]] = {
    "dense attention": ("DecomposedAttn", {"batch_i": 0, "layer": 0}),
    "logits of one token": ("Logits", {"options": {"slices": [{"axis": "d_vocab", "stop": 1}]}}),
    "every 32nd position": ("Logits", {"options": {"slices": [{"axis": "pos", "step": 32}]}}),
    "weights": ("NeuronOutputs", {"layer": 0, "options": {"slices": [{"axis": "d_model", "stop": 1}]}}),
}
