"""SIGTERM under work that nobody waits for any more, or that would never end: the process ends within its limits."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import pytest

from attack.victim import Victim, victim
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import SERVICE

pytestmark = pytest.mark.measured

DRAIN_S = 3.0
REST_S = 2.0
"""What the end may take beyond the drain time."""

GIVEN_UP_AFTER_S = 0.5
LONG_SENTENCE = "a " * 1_900_000
"""Takes a tokenizer seconds, and is refused then."""

Attack = Callable[[Victim, grpc.Channel, bool], list[Any]]
"""What it returns are calls that stay open as long as somebody has them."""


def call(attacked: Victim, channel: grpc.Channel, method: str, requests: Iterator[Any]) -> Any:
    """Any method as bytes, so that its request can also be left out."""
    start = channel.stream_stream(f"/{SERVICE}/{method}", lambda message: message.SerializeToString(), bytes)
    return start(requests, metadata=attacked.metadata())


def give_up(attacked: Victim, channel: grpc.Channel, method: str, requests: Sequence[Any]) -> list[Any]:
    """All are asked for, and then nobody waits for them."""
    calls = [call(attacked, channel, method, iter([request])) for request in requests]
    threading.Event().wait(GIVEN_UP_AFTER_S)
    for under_way in calls:
        under_way.cancel()
    return []


def runs_given_up(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    rows = [[2 + n] * 256 for n in range(255 if is_long else 100)]
    runs = [RunInput(token_ids=((1, *[n] * 200), *map(tuple, rows))) for n in range(30)]
    return give_up(attacked, channel, "Run", [requests.run(run, "") for run in runs])


def sentences_given_up(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    runs = [RunInput(sentences=(f"{n} {LONG_SENTENCE}",)) for n in range(24 if is_long else 8)]
    return give_up(attacked, channel, "Run", [requests.run(run, "") for run in runs])


def fetches_given_up(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    run_id = a_run(attacked)
    item = requests.Item("attention_output", (0, 0, 1, 0), Form())
    request = requests.fetch(run_id, [item] * 100_000)
    return give_up(attacked, channel, "Fetch", [request] * (48 if is_long else 16))


def silent_streams(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    """Calls that are open and whose request never comes."""

    def never() -> Iterator[Any]:
        threading.Event().wait(60)
        yield from ()

    return [call(attacked, channel, "Run", never()) for _ in range(100 if is_long else 40)]


def stalled_streams(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    """Calls whose answers nobody reads."""
    run_id = a_run(attacked)
    options = tensor_pb2.TensorOptions(max_chunk_bytes=2**20)
    request = requests.of_method("logits", run_id, options=options)
    calls = [call(attacked, channel, "Logits", iter([request])) for _ in range(40 if is_long else 10)]
    for under_way in calls:
        next(under_way)
    return calls


def a_run(attacked: Victim) -> str:
    """A run of the attacker's that can be read."""
    with grpc.insecure_channel(attacked.address) as channel:
        request = requests.run(RunInput(token_ids=tuple([tuple(range(1, 257))] * 64)), "")
        data = next(call(attacked, channel, "Run", iter([request])))
    return str(service_pb2.RunResponse.FromString(data).run_id)


ATTACKS: list[Attack] = [stalled_streams, fetches_given_up, silent_streams, runs_given_up, sentences_given_up]


def everything(attacked: Victim, channel: grpc.Channel, is_long: bool) -> list[Any]:
    return [kept for attack in ATTACKS for kept in attack(attacked, channel, is_long)]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each alone says which it was, and is of the long form: what ends with all of them ends with any."""
    attacks = [*ATTACKS, everything] if metafunc.config.getoption("--long") else [everything]
    metafunc.parametrize("attack", attacks, ids=lambda attack: attack.__name__)


def test_the_process_ends_within_its_drain_time(attack: Attack, is_long: bool) -> None:
    with victim("--drain-s", f"{DRAIN_S:g}") as attacked:
        channel = grpc.insecure_channel(attacked.address)
        try:
            kept = attack(attacked, channel, is_long)
            began = time.monotonic()
            attacked.process.send_signal(signal.SIGTERM)
            code = attacked.process.wait(120)
            seconds = time.monotonic() - began
        finally:
            channel.close()
        n_open = f", {len(kept)} streams open" if kept else ""
        print(f"\n{attack.__name__}: ended {seconds:.1f} s after SIGTERM with --drain-s {DRAIN_S:g}{n_open}")
        assert code == 0, attacked.log
        assert seconds < DRAIN_S + REST_S, attacked.log
