"""Replicas of a server on loopback and Envoy before them, set up as the project's tests do."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from peers import device

sys.path.append(str(Path(__file__).parents[2] / "tests"))
from support.deploy.envoy import envoy
from support.network.zone import zone
from support.servers.replicas import replicas


@dataclass(frozen=True)
class Targets:
    """The same replicas, by both ways."""

    envoy: str
    direct: str


@contextmanager
def cluster(count: int, *arguments: str) -> Iterator[Targets]:
    """So many of them, that end with the block."""
    on_device = ("--device", str(device.chosen()), *arguments)
    with tempfile.TemporaryDirectory() as name, replicas(count, Path(name), *on_device) as started, zone() as names:
        names.addresses = tuple(replica.host for replica in started)
        addresses = [replica.address for replica in started]
        with envoy(int(addresses[0].rpartition(":")[2]), Path(name) / "envoy", dns_port=names.port) as proxy:
            proxy.await_healthy(*names.addresses)
            direct = addresses[0] if count == 1 else f"ipv4:{','.join(addresses)}"
            yield Targets(proxy.address, direct)
