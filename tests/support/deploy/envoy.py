"""The real Envoy with the project's own configuration, of which only addresses and paths are changed."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from support.network.ports import free_port
from support.servers.polling import wait_until

FOLDER = Path(__file__).parents[3] / "deploy" / "envoy"
BINARY = Path(sys.prefix) / "bin" / "envoy"


Change = Callable[[dict[str, Any]], None]
"""Of a configuration, in place."""


def unchanged(config: dict[str, Any]) -> None:
    """As it is."""


def ingress_of(config: dict[str, Any]) -> dict[str, Any]:
    """What it does with calls: the settings of its connection manager."""
    listener = next(each for each in config["static_resources"]["listeners"] if each["name"] == "ingress")
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][0]["typed_config"]
    return found


class Envoy:
    """A running one."""

    process = 0
    """Its id."""

    def __init__(self, admin: str, folder: Path) -> None:
        self._admin = admin
        self.log = folder / "envoy.log"
        self._calls: list[dict[str, Any]] = []
        self._read = 0

    def ask(self, path: str) -> Any:
        """Its admin interface."""
        with urllib.request.urlopen(f"http://{self._admin}{path}", timeout=10) as response:
            return json.load(response)

    @property
    def address(self) -> str:
        return self._address_of("ingress")

    @property
    def stats_address(self) -> str:
        return self._address_of("stats")

    def healthy(self) -> set[str]:
        """Hosts of the replicas that get calls."""
        hosts: set[str] = set()
        for cluster in self.ask("/clusters?format=json")["cluster_statuses"]:
            if cluster["name"] == "replicas":
                hosts |= {_host(status) for status in cluster.get("host_statuses", []) if _is_healthy(status)}
        return hosts

    def await_healthy(self, *hosts: str) -> None:
        """Until it sends calls to these replicas and no others."""
        wait_until(lambda: self.healthy() == set(hosts))

    def statistic(self, name: str) -> int:
        """One of its counters or gauges."""
        found = self.ask(f"/stats?format=json&filter=^{name}$")["stats"]
        return int(found[0]["value"]) if found and "value" in found[0] else 0

    def calls(self) -> list[dict[str, Any]]:
        """Its access log so far."""
        with self.log.open("rb") as log:
            log.seek(self._read)
            whole, end, _ = log.read().rpartition(b"\n")
        self._read += len(whole + end)
        self._calls += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return self._calls

    def await_log(self) -> None:
        """Until all calls that have ended are in it."""
        wait_until(lambda: len(self.calls()) >= self._ended_calls())

    def _ended_calls(self) -> int:
        """Those that were broken off too, which Envoy does not count as completed."""
        return self.statistic("http.ingress.downstream_rq_total") - self.statistic("http.ingress.downstream_rq_active")

    def _address_of(self, listener: str) -> str:
        for status in self.ask("/listeners?format=json")["listener_statuses"]:
            if status["name"] == listener:
                address = status["local_address"]["socket_address"]
                return f"{address['address']}:{address['port_value']}"
        raise LookupError(listener)


def _host(status: dict[str, Any]) -> str:
    return str(status["address"]["socket_address"]["address"])


def _is_healthy(status: dict[str, Any]) -> bool:
    health = status["health_status"]
    return set(health) == {"eds_health_status"}


@contextmanager
def envoy(
    port: int,
    folder: Path,
    *,
    probe_port: int = 0,
    dns_port: int = 0,
    host: str = "",
    name: str = "envoy.yaml",
    files: str = "",
    change: Change = unchanged,
) -> Iterator[Envoy]:
    """Before replicas that listen on `port`, found at the name server on `dns_port` or at the one `host`.

    They are asked for their health at `probe_port`, or at `port` without. `files` is a folder with certificates that
    stands for /etc/envoy. What a test wants otherwise it may `change` in the configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    admin = free_port(["127.0.0.1"])
    text = (FOLDER / name).read_text(encoding="utf-8")
    config = adapted(text, files, admin, (port, probe_port or port), dns_port, host)
    change(config)
    path = folder / "envoy.json"
    path.write_text(json.dumps(config), encoding="utf-8")
    running = Envoy(f"127.0.0.1:{admin}", folder)
    command = [BINARY, "-c", path, "--concurrency", "2", "--use-dynamic-base-id", "--log-level", "warn"]
    command += ["--file-flush-interval-msec", "50"]
    with running.log.open("w") as log, subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT) as process:
        running.process = process.pid
        try:
            wait_until(lambda: _is_up(running, process))
            yield running
        finally:
            process.terminate()
            process.wait()


@contextmanager
def envoy_before(server: str, folder: Path, probes: str = "", change: Change = unchanged) -> Iterator[Envoy]:
    """Before one server, HOST:PORT, and ready to send it calls. Its `probes` are on another port, if on one."""
    host, _, port = server.rpartition(":")
    probe_port = int(probes.rpartition(":")[2]) if probes else 0
    with envoy(int(port), folder, probe_port=probe_port, host=host, change=change) as proxy:
        proxy.await_healthy(host)
        yield proxy


def install(folder: Path) -> None:
    """What the configurations find beside them in /etc/envoy, where that is this folder."""
    for path in FOLDER.iterdir():
        if path.suffix == ".pb":
            (folder / path.name).write_bytes(path.read_bytes())
        elif path.suffix == ".yaml":
            text = path.read_text(encoding="utf-8").replace("/etc/envoy", str(folder))
            (folder / path.name).write_text(text, encoding="utf-8")
        elif path.is_dir():
            shutil.copytree(path, folder / path.name)


def adapted(text: str, files: str, admin: int, ports: tuple[int, int], dns_port: int, host: str) -> dict[str, Any]:
    """For loopback and free ports."""
    config: dict[str, Any] = yaml.safe_load(text.replace("/etc/envoy", files or str(FOLDER)))
    config["admin"]["address"]["socket_address"]["port_value"] = admin
    for listener in config["static_resources"]["listeners"]:
        listener["address"]["socket_address"] = {"address": "127.0.0.1", "port_value": 0}
    for cluster in config["static_resources"]["clusters"]:
        (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
        place = endpoint["endpoint"]["address"]["socket_address"]
        place["port_value"] = admin if cluster["name"] == "admin" else ports[0]
        if cluster["name"] == "replicas":
            endpoint["endpoint"]["health_check_config"]["port_value"] = ports[1]
            place["address"] = host or place["address"]
            cluster["cluster_type"]["typed_config"].update(_resolver(dns_port) if dns_port else {})
    return config


def _resolver(dns_port: int) -> dict[str, Any]:
    kind = "type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig"
    resolvers = [{"socket_address": {"address": "127.0.0.1", "port_value": dns_port}}]
    options = {"no_default_search_domain": True}
    typed = {"@type": kind, "resolvers": resolvers, "dns_resolver_options": options}
    return {"typed_dns_resolver_config": {"name": "envoy.network.dns_resolver.cares", "typed_config": typed}}


def _is_up(running: Envoy, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, running.log.read_text()[-3000:]
    try:
        return bool(running.ask("/server_info")["state"] == "LIVE" and running.address)
    except (OSError, LookupError):
        return False
