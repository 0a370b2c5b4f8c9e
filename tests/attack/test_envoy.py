"""Strangers before the proxy: calls that never come, headers that would steer it, memory that runs short."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from attack.victim import HEALTH_WITHIN_S, OTHER, Victim, standing_by, victim
from support.deploy.envoy import Envoy, envoy_before, ingress_of
from support.network.http2 import silent_calls
from support.servers.engines import SOON
from support.servers.polling import wait_for, wait_until
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.wire.methods import SERVICE

pytestmark = pytest.mark.measured

CONNECTIONS, CALLS = 2, 12
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim() as started:
        yield started


def through(proxy: Envoy, attacked: Victim) -> RemoteTransparentLlm:
    return RemoteTransparentLlm(proxy.address, token=attacked.bearer_tokens[OTHER], timeout_s=SOON)


def test_silent_calls_leave_a_replica_healthy(attacked: Victim, tmp_path: Path, is_long: bool) -> None:
    """It is asked at another port than strangers come to, and what they begin there gives way."""
    paths = [CHECK, WATCH, f"/{SERVICE}/Run", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]
    slowest = 0.0
    with (
        envoy_before(attacked.address, tmp_path, attacked.probe_address) as proxy,
        standing_by(attacked),
        through(proxy, attacked) as llm,
    ):
        before = proxy.statistic("cluster.replicas.health_check.attempt")
        with ExitStack() as stack:
            for path in paths * CONNECTIONS:
                stack.enter_context(silent_calls(proxy.address, path, CALLS))
            all_of_them = len(paths) * CONNECTIONS * CALLS
            wait_for(
                lambda: min(all_of_them, proxy.statistic("http.ingress.downstream_rq_total")),
                all_of_them,
                "calls that have begun",
            )
            wanted = before + (20 if is_long else 4)
            while proxy.statistic("cluster.replicas.health_check.attempt") < wanted:
                began = time.monotonic()
                assert llm.is_serving()
                slowest = max(slowest, time.monotonic() - began)
                llm.server_info()
                assert len(proxy.healthy()) == 1
        assert proxy.statistic("cluster.replicas.health_check.failure") == 0
    print(f"{all_of_them} silent calls; health through Envoy within {slowest * 1000:.0f} ms")
    assert slowest < HEALTH_WITHIN_S


def test_nobody_is_told_of_changes_for_ever(attacked: Victim, tmp_path: Path) -> None:
    with envoy_before(attacked.address, tmp_path, attacked.probe_address) as proxy:
        with grpc.insecure_channel(proxy.address) as channel:
            watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=SOON)
            with pytest.raises(grpc.RpcError) as refused:
                next(watch)
    error: Any = refused.value
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", [CHECK, f"/{SERVICE}/Run"])
def test_who_sends_nothing_is_not_waited_for(path: str, attacked: Victim, tmp_path: Path) -> None:
    def soon(config: dict[str, Any]) -> None:
        ingress = ingress_of(config)
        assert ingress["request_timeout"] == "30s"
        ingress["request_timeout"] = "1s"

    with envoy_before(attacked.address, tmp_path, attacked.probe_address, soon) as proxy:
        with silent_calls(proxy.address, path, CALLS) as calls:
            waiting = {2 * number + 1 for number in range(CALLS)}
            while waiting:
                waiting.discard(calls.read_end().stream)


@pytest.mark.parametrize(
    "header",
    [
        ("x-envoy-upstream-rq-timeout-ms", "1"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", "1"),
        ("x-envoy-max-retries", "9"),
    ],
)
@pytest.mark.parametrize("whence", [None, "10.0.0.1", "127.0.0.1"])
def test_no_header_steers_the_proxy(
    header: tuple[str, str], whence: str | None, attacked: Victim, tmp_path: Path
) -> None:
    forwarded = [("x-forwarded-for", whence)] if whence else []
    with envoy_before(attacked.address, tmp_path, attacked.probe_address) as proxy:
        with grpc.insecure_channel(proxy.address) as channel:
            info = channel.unary_unary(f"/{SERVICE}/ServerInfo")
            metadata = [header, *forwarded, *attacked.metadata(OTHER)]
            for _ in range(20):
                assert info(b"", metadata=metadata, timeout=SOON)
        assert proxy.statistic("cluster.replicas.upstream_rq_timeout") == 0
        assert proxy.statistic("cluster.replicas.upstream_rq_per_try_timeout") == 0
        assert proxy.statistic("cluster.replicas.upstream_rq_retry") == 0


def short_of_memory(config: dict[str, Any]) -> None:
    """By a bound that it is over from the first moment on."""
    monitors = config["overload_manager"]["resource_monitors"]
    (heap,) = (each for each in monitors if each["name"].endswith("fixed_heap"))
    heap["typed_config"]["max_heap_size_bytes"] = 2**20


def without_the_last_resort(config: dict[str, Any]) -> None:
    """Connections are taken still, so that a test can see what becomes of calls."""
    short_of_memory(config)
    config["overload_manager"]["loadshed_points"] = []


def test_a_proxy_that_is_short_of_memory_says_so_and_can_be_asked(attacked: Victim, tmp_path: Path) -> None:
    with envoy_before(attacked.address, tmp_path, attacked.probe_address, without_the_last_resort) as proxy:
        wait_until(lambda: proxy.statistic("overload.envoy.overload_actions.stop_accepting_requests.active"))
        with through(proxy, attacked) as llm, pytest.raises(errors.UnavailableError):
            llm.server_info()
        assert answers(proxy.stats_address, "/ready")
        assert answers(proxy.stats_address, "/stats/prometheus")


def test_one_that_is_far_over_takes_no_connections(attacked: Victim, tmp_path: Path) -> None:
    with envoy_before(attacked.address, tmp_path, attacked.probe_address, short_of_memory) as proxy:
        wait_until(lambda: proxy.statistic("overload.envoy.overload_actions.stop_accepting_requests.active"))
        with through(proxy, attacked) as llm, pytest.raises(errors.UnavailableError):
            llm.server_info()
        assert answers(proxy.stats_address, "/ready")
        wait_until(lambda: proxy.statistic("listener.*downstream_cx_overload_reject"))


def answers(address: str, path: str) -> bool:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=SOON) as response:
        return bool(response.status == 200)
