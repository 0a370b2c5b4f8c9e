"""Three replicas, found by name, and Envoy before them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.deploy.envoy import Envoy, envoy
from support.network.zone import Zone, zone
from support.servers.replicas import Replica, replicas

DRAINS = ("--drain-announce-s", "3", "--drain-s", "20")
"""Envoy looks at the health every second, twice before it believes a failure."""


@dataclass(frozen=True)
class Cluster:
    replicas: list[Replica]
    zone: Zone
    proxy: Envoy

    @property
    def hosts(self) -> list[str]:
        return [replica.host for replica in self.replicas]

    @property
    def port(self) -> int:
        return int(self.replicas[0].address.rpartition(":")[2])

    def mend(self) -> None:
        """All replicas are there again."""
        self.zone.addresses = tuple(self.hosts)
        self.proxy.await_healthy(*self.hosts)


@pytest.fixture(scope="package")
def whole_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder: Path = tmp_path_factory.mktemp("cluster")
    with replicas(3, folder, *DRAINS) as started, zone() as names:
        names.addresses = tuple(replica.host for replica in started)
        port, probe_port = (int(address.rpartition(":")[2]) for address in (started[0].address, started[0].probes))
        with envoy(port, folder / "envoy", probe_port=probe_port, dns_port=names.port) as proxy:
            yield Cluster(started, names, proxy)


@pytest.fixture
def cluster(whole_cluster: Cluster) -> Cluster:
    whole_cluster.mend()
    whole_cluster.proxy.await_log()
    return whole_cluster
