"""Calls whose request never comes, and answers that nobody takes, cost nothing that anybody else needs."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attack.silence import CHECK, LOGITS, MODEL_INFO, REFLECTION, RUN, WATCH, ended, silent
from attack.victim import ATTACKER, OTHER, Victim, standing_by, told_health, victim
from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm.wire._gen import service_pb2

pytestmark = pytest.mark.measured

LASTS_S = 2.0
"""How long an attack goes on beside the bystander."""


def go_on() -> None:
    """While the bystander is at work."""
    threading.Event().wait(LASTS_S)


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    """One for all: what an attack leaves behind is there when the next one begins."""
    with victim() as started:
        yield started


def addresses(attacked: Victim) -> dict[str, str]:
    return {"calls": attacked.address, "probes": attacked.probe_address}


@pytest.mark.parametrize("port", ["calls", "probes"])
@pytest.mark.parametrize("path", [CHECK, WATCH])
def test_health_checks_that_send_no_request_do_not_end_health(attacked: Victim, port: str, path: str) -> None:
    """Two of them, of anybody, did."""
    with standing_by(attacked):
        with silent(addresses(attacked)[port], [path] * 100, connections=4) as calls:
            go_on()
            assert len(ended(calls)) > 50  # they gave way, each to the next


@pytest.mark.parametrize("port", ["calls", "probes"])
def test_a_burst_of_health_checks_refuses_nobody_else(attacked: Victim, port: str) -> None:
    """Of more than 64 that began at once, gRPC refused the next, whoever it was of."""
    with standing_by(attacked, moment=True):
        burst_beside_askers(addresses(attacked)[port])


def test_a_burst_of_health_checks_at_a_full_server_of_few_calls_refuses_nobody_else() -> None:
    """The threads of health are more than such a server has calls: gRPC counted only those of calls."""
    few = ["--max-streams", "4", "--max-streams-per-owner", "4", "--spare-threads", "2"]
    with victim(*few) as full, silent(full.address, [RUN] * 4, full.metadata()):
        burst_beside_askers(full.address)


def burst_beside_askers(address: str) -> None:
    """1000 silent checks at a time, and two who ask for health without a pause."""
    over = threading.Event()
    with ThreadPoolExecutor(2) as pool:
        askers = [pool.submit(ask_until, over, address) for _ in range(2)]
        try:
            for _ in range(4):
                with silent(address, [CHECK] * 1000, connections=10) as calls:
                    wait_until(lambda calls=calls: len(ended(calls)) >= 1000 - 64)
        finally:
            over.set()
        assert min(asker.result() for asker in askers) > 50


def ask_until(over: threading.Event, address: str) -> int:
    """How often health was told, without a pause between."""
    count = 0
    while not over.is_set():
        told_health(address, SOON)
        count += 1
    return count


def test_health_that_is_watched_by_many_is_told_to_those_who_ask_and_to_the_last_watcher(attacked: Victim) -> None:
    with standing_by(attacked), grpc.insecure_channel(attacked.address) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = [watch(health_pb2.HealthCheckRequest(service=""), timeout=2 * SOON) for _ in range(100)]
        assert next(watches[-1]).status == health_pb2.HealthCheckResponse.SERVING
        go_on()
        codes: list[grpc.StatusCode] = []
        for stream in watches:
            threading.Thread(target=lambda stream=stream: codes.append(code_of(stream))).start()
        wait_until(lambda: len(codes) >= 80)  # the oldest, in the order in which the server's threads took them up
        assert set(codes) == {grpc.StatusCode.CANCELLED}
        last = watch(health_pb2.HealthCheckRequest(service=""))
        assert next(last).status == health_pb2.HealthCheckResponse.SERVING


def code_of(stream: Any) -> grpc.StatusCode:
    """How it ends."""
    with pytest.raises(grpc.RpcError) as caught:
        list(stream)
    code: grpc.StatusCode = caught.value.code()
    return code


@pytest.mark.parametrize("path", [RUN, LOGITS, REFLECTION])
def test_calls_that_send_no_request_take_no_place_of_others(attacked: Victim, path: str) -> None:
    """200 of one owner took all threads."""
    with standing_by(attacked):
        with silent(attacked.address, [path] * 200, attacked.metadata(ATTACKER), connections=4) as calls:
            go_on()
            wait_until(lambda: len(ended(calls)) >= 200 - 64)
            with attacked.client(ATTACKER) as llm:  # not even of their own
                assert llm.model_info().name == "demo"


def test_where_all_are_one_owner_those_who_ask_come_before_those_who_are_silent() -> None:
    with victim(owners=False) as attacked:
        with silent(attacked.address, [RUN, LOGITS] * 250, connections=5), attacked.client(OTHER) as llm:
            longest = 0.0
            for _ in range(100):
                began = time.monotonic()
                llm.run(["What say you?"])
                longest = max(longest, time.monotonic() - began)
        print(f"\n100 runs beside 500 silent calls: the longest took {longest * 1000:.0f} ms")
        assert attacked.is_alive()


def test_a_request_that_does_not_come_in_time_is_waited_for_no_more() -> None:
    with victim("--request-arrival-s", "0.5") as attacked:
        with silent(attacked.address, [RUN] * 8, attacked.metadata()) as calls:
            wait_until(lambda: ended(calls) == [grpc.StatusCode.CANCELLED] * 8)
        wait_until(lambda: "8 calls whose request did not arrive were cancelled" in attacked.log)
        with silent(attacked.probe_address, [CHECK] * 2) as calls:
            wait_until(lambda: len(ended(calls)) == 2)


def test_answers_that_nobody_reads_are_kept_within_a_limit(attacked: Victim) -> None:
    """200 of them took 113 MB, and would have taken more for ever."""
    with standing_by(attacked), contextlib.ExitStack() as stack:
        before, most = attacked.resident_bytes, 0
        request = service_pb2.TokensToStringsRequest(token_ids=[11] * 60_000).SerializeToString()
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.http2.lookahead_bytes", 1)]
        calls = []
        for _ in range(10):
            channel = stack.enter_context(grpc.insecure_channel(attacked.address, options))
            calls += [unread(channel, request, attacked) for _ in range(20)]
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            most = max(most, attacked.resident_bytes - before)
            threading.Event().wait(0.05)
        print(f"\n200 answers of {len(request)} bytes and more, unread: {most / 2**20:+.0f} MiB at the most")
        for call in calls:
            call.cancel()


def unread(channel: grpc.Channel, request: bytes, attacked: Victim) -> Any:
    """A call whose client has sent its request and takes no message."""
    call = channel.stream_stream(MODEL_INFO.replace("ModelInfo", "TokensToStrings"))
    return call(iter([request]), metadata=attacked.metadata())
