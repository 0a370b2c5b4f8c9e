"""Replicas are killed, restarted and stopped under load: no value is wrong and no result is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.conftest import Cluster
from cluster.load import load
from support.deploy.envoy import envoy_before
from support.models.tensors import assert_same_bits
from support.network.proxy import interrupting
from transparent_llm import RemoteTransparentLlm

pytestmark = pytest.mark.measured


def direct_target(cluster: Cluster) -> str:
    return "ipv4:" + ",".join(replica.address for replica in cluster.replicas)


@pytest.mark.parametrize("way", ["proxy", "client"])
def test_a_killed_replica_loses_nothing(cluster: Cluster, way: str, is_long: bool) -> None:
    target = cluster.proxy.address if way == "proxy" else direct_target(cluster)
    with load(target) as clients:
        for victim in cluster.replicas * (3 if is_long else 1):
            victim.kill()
            clients.await_calls(100)
            victim.start()
            victim.await_ready()
            cluster.mend()
            clients.await_calls(50)
            if not is_long:
                break
    print(f"\n{dict(clients.counts)}")
    assert clients.errors == []
    assert clients.counts["wrong"] == 0


@pytest.mark.parametrize("way", ["proxy", "client"])
def test_a_rolling_restart_fails_no_call(cluster: Cluster, way: str, is_long: bool) -> None:
    target = cluster.proxy.address if way == "proxy" else direct_target(cluster)
    with load(target) as clients:
        for replica in cluster.replicas * (3 if is_long else 1):
            assert replica.terminate() == 0
            replica.start()
            replica.await_ready()
            cluster.mend()
            clients.await_calls(20)
    print(f"\n{dict(clients.counts)}")
    assert clients.errors == []
    assert clients.counts["wrong"] == 0


def test_a_stream_that_the_proxy_breaks_off_is_taken_up_again(cluster: Cluster, tmp_path: Path) -> None:
    """Behind it connections are interrupted at a byte; the proxy says so by resetting the stream."""
    batch = [list(range(1, 101))] * 32
    with RemoteTransparentLlm(cluster.replicas[0].address) as direct:
        direct.run_tokens(batch)
        wanted = direct.logits()
    with interrupting(cluster.replicas[0].address, [wanted.nbytes // 3] * 2) as interrupter:
        with envoy_before(interrupter.address, tmp_path) as proxy:
            with RemoteTransparentLlm(proxy.address, shared_memory=False, timeout_s=60) as llm:
                llm.run_tokens(batch)
                assert_same_bits(llm.logits(), wanted)
        assert interrupter.interruptions >= 1


def test_a_replica_that_hangs_is_taken_out(cluster: Cluster) -> None:
    with load(cluster.proxy.address) as clients:
        victim = cluster.replicas[1]
        victim.hang()
        try:
            cluster.proxy.await_healthy(cluster.hosts[0], cluster.hosts[2])
            clients.await_calls(200)
        finally:
            victim.go_on()
        cluster.mend()
    print(f"\n{dict(clients.counts)}")
    assert clients.errors == []
    assert clients.counts["wrong"] == 0
