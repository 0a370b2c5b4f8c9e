"""One run's calls go to one replica, runs are spread over all, and a new replica takes over its part only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.conftest import Cluster
from cluster.load import rows
from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm import RemoteTransparentLlm
from transparent_llm.wire.methods import RUN_KEY_HEADER

pytestmark = pytest.mark.measured

RUNS, KEYS = 40, 600
Calls = list[dict[str, Any]]


def test_the_calls_of_a_run_go_to_one_replica(cluster: Cluster) -> None:
    calls = undisturbed(cluster, lambda: calls_of_runs(cluster))
    assert len(calls) == 6 * RUNS
    assert {call["grpc_status"] for call in calls} == {"OK"}
    at_home = sum(
        call["replica"] == run["replica"]
        for run, *reads in (calls[start : start + 6] for start in range(0, len(calls), 6))
        for call in (run, *reads)
    )
    spread = Counter(call["replica"] for call in calls if call["path"].endswith("/Run"))
    print(f"\n{at_home} of {len(calls)} calls at the replica of their run; runs by replica {sorted(spread.values())}")
    assert at_home >= 0.99 * len(calls)
    assert len(spread) == 3


def undisturbed(cluster: Cluster, work: Callable[[], Calls]) -> Calls:
    """What came of it while no replica was late for Envoy: one that starves is taken out, and its runs move."""
    for _ in range(5):
        before = failures(cluster)
        calls = work()
        if failures(cluster) == before:
            return calls
    raise AssertionError("replicas were taken out again and again")


def failures(cluster: Cluster) -> list[int]:
    """Of replicas, as Envoy saw them so far."""
    names = ("health_check.failure", "outlier_detection.ejections_enforced_total")
    return [cluster.proxy.statistic(f"cluster.replicas.{name}") for name in names]


def calls_of_runs(cluster: Cluster) -> Calls:
    """Six for each run, in order."""
    homes(cluster, among=3)  # whatever was done earlier has settled
    names = ("Run", "ResidualOut", "Logits")
    before = len(logged(cluster, *names))
    with RemoteTransparentLlm(cluster.proxy.address, cache_bytes=0, read_ahead_bytes=0, shared_memory=False) as llm:
        for case in range(RUNS):
            llm.run_tokens([row[:8] for row in rows(case)])
            for layer in range(4):
                llm.residual_out(layer)
            llm.logits()
    wait_until(lambda: len(logged(cluster, *names)) >= before + 6 * RUNS)
    return logged(cluster, *names)[before:]


def logged(cluster: Cluster, *names: str) -> Calls:
    """All calls of these methods so far."""
    return [call for call in cluster.proxy.calls() if call["path"].rpartition("/")[2] in names]


def homes(cluster: Cluster, among: int) -> dict[str, str]:
    """Key -> the replica that its calls go to, once that has settled among so many."""
    rounds: list[dict[str, str]] = [{}]

    def are_settled() -> bool:
        rounds.append(_homes(cluster))
        known = {replica.address for replica in cluster.replicas[:among]}
        return rounds[-1] == rounds[-2] and set(rounds[-1].values()) == known

    wait_until(are_settled, within_s=4 * SOON)
    return rounds[-1]


def _homes(cluster: Cluster) -> dict[str, str]:
    before = len(logged(cluster, "Check"))
    with grpc.insecure_channel(cluster.proxy.address) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for number in range(KEYS):
            key = (RUN_KEY_HEADER, f"{number:032x}")
            health.Check(health_pb2.HealthCheckRequest(), timeout=10, metadata=[key])
    wait_until(lambda: len(logged(cluster, "Check")) >= before + KEYS)
    return {f"{number:032x}": call["replica"] for number, call in enumerate(logged(cluster, "Check")[before:])}


def test_a_third_replica_takes_a_third_of_the_keys_and_hardly_another_moves(cluster: Cluster) -> None:
    third = cluster.replicas[2]
    cluster.zone.addresses = tuple(cluster.hosts[:2])
    third.terminate()
    before = homes(cluster, among=2)
    third.start()
    third.await_ready()
    cluster.mend()
    after = homes(cluster, among=3)
    moved = {key for key in before if before[key] != after[key]}
    print(f"\n{len(moved)} of {KEYS} keys moved")
    astray = [key for key in moved if after[key] != cluster.replicas[2].address]
    assert len(astray) <= 0.01 * KEYS  # Maglev moves one in some thousand keys between the old ones
    assert min(Counter(after.values()).values()) > 0.25 * KEYS
    assert 0.25 < len(moved) / KEYS < 0.42


@pytest.mark.parametrize("scheme", ["ipv4", "dns"])
def test_a_client_without_a_proxy_does_the_same(cluster: Cluster, scheme: str) -> None:
    """Where runs are kept tells where their calls went."""
    target = f"dns://127.0.0.1:{cluster.zone.port}/transparent-llm-servers:{cluster.port}"
    if scheme == "ipv4":
        target = "ipv4:" + ",".join(replica.address for replica in cluster.replicas)
    before, settings = stored_runs(cluster), {"cache_bytes": 0, "read_ahead_bytes": 0}
    with RemoteTransparentLlm(target, rerun=False, **settings) as llm:  # type: ignore[arg-type]
        for case in range(RUNS):
            llm.run_tokens([row[:9] for row in rows(1000 * len(scheme) + case)])
            for layer in range(4):
                llm.residual_out(layer)  # a call that went astray would be told RUN_NOT_FOUND
    after = stored_runs(cluster)
    grown = {host: after[host] - before[host] for host in after}
    assert sum(grown.values()) == RUNS
    assert min(grown.values()) > 0


def stored_runs(cluster: Cluster) -> dict[str, int]:
    found = {}
    for replica in cluster.replicas:
        with RemoteTransparentLlm(replica.address) as direct:
            found[replica.host] = direct.server_info().stored_runs
    return found
