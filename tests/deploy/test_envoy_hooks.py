"""What compose and Kubernetes run inside Envoy's container, against a real Envoy with the project's configuration."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support.deploy.manifests import ENVOY, FOLDER, ROOT, build, container_of, named, read_yaml
from support.deploy.secret_volume import SecretVolume
from support.network.ports import free_ports
from support.servers import read_only
from support.servers.certificates import Authority, shown_serial
from support.servers.polling import wait_until

CONFIGURATION = ROOT / "deploy" / "envoy"
ENVOY_BINARY = Path(sys.prefix, "bin", "envoy")
ADMIN, STATS = 9901, 9902


def configuration(folder: Path, name: str = "envoy.yaml") -> tuple[Path, dict[int, int]]:
    """The project's files in this folder, with other ports than in a container of its own; these, by those."""
    ports = dict(zip((50051, ADMIN, STATS), free_ports(3), strict=True))
    for file in (path for path in CONFIGURATION.iterdir() if path.name != "kustomization.yaml"):
        if file.suffix == ".yaml":
            text = json.dumps(read_yaml(file.read_text(encoding="utf-8")))
            for there, here in ports.items():
                text = text.replace(f'"port_value": {there}', f'"port_value": {here}')
            text = text.replace("/etc/envoy/", f"{folder}/").replace('"transparent-llm-servers"', '"localhost"')
            (folder / file.name).write_text(text)
        elif file.is_dir():
            shutil.copytree(file, folder / file.name)
        else:
            (folder / file.name).write_bytes(file.read_bytes())
    return folder / name, ports


@contextmanager
def envoy(folder: Path, *arguments: str, name: str = "envoy.yaml") -> Iterator[dict[int, int]]:
    """A running one, and its ports."""
    file, ports = configuration(folder, name)
    with (folder / "envoy.log").open("wb") as log:
        command = [ENVOY_BINARY, "--config-path", file, "--disable-hot-restart", "--concurrency", "1", *arguments]
        running = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        wait_until(lambda: accepts(ports[STATS]) or running.poll() is not None)
        assert running.poll() is None, (folder / "envoy.log").read_text()
        yield ports
        assert running.poll() is None, "it ended by itself"
    finally:
        running.kill()
        running.wait()


def accepts(port: int) -> bool:
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def run(command: list[str], ports: dict[int, int]) -> subprocess.CompletedProcess[str]:
    """A container's command, sent to the ports that are taken here."""
    script = command[-1].replace("sleep 60", "true")
    for there, here in ports.items():
        script = script.replace(f"/127.0.0.1/{there}", f"/127.0.0.1/{here}")
    return subprocess.run([*command[:-1], script], capture_output=True, text=True, timeout=60)


@pytest.mark.skipif(not read_only.is_possible(), reason="only root makes a file system read-only")
def test_it_starts_as_compose_starts_it_where_nothing_can_be_written(compose_envoy: dict[str, Any]) -> None:
    with read_only.reachable_folder() as folder:
        file, ports = configuration(folder)
        arguments = [str(file) if word == "/etc/envoy/envoy.yaml" else word for word in compose_envoy["command"][1:]]
        assert str(file) in arguments
        log = folder / "envoy.log"
        command = [ENVOY_BINARY, *arguments]
        with read_only.process(command, ENVOY_BINARY.parent, folder / "scratch", log) as running:
            wait_until(lambda: accepts(ports[STATS]) or running.poll() is not None)
            assert running.poll() is None, log.read_text()
        assert list((folder / "scratch").iterdir()) == []


@pytest.fixture
def compose_envoy() -> dict[str, Any]:
    service: dict[str, Any] = read_yaml((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["envoy"]
    return service


@pytest.fixture
def compose_health(compose_envoy: dict[str, Any]) -> list[str]:
    return list(compose_envoy["healthcheck"]["test"][1:])


def test_the_health_command_of_compose_tells_a_ready_envoy_from_none(compose_health: list[str], tmp_path: Path) -> None:
    with envoy(tmp_path) as ports:
        assert run(compose_health, ports).returncode == 0
        nobody = {**ports, STATS: free_ports(1)[0]}
        assert run(compose_health, nobody).returncode != 0
        elsewhere = [*compose_health[:-1], compose_health[-1].replace("/ready", "/unready")]
        assert run(elsewhere, ports).returncode != 0


def is_sent_away(port: int) -> bool:
    """Whether a client's connection is asked to leave after its answer; by HTTP/1.1, where that can be read."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/nothing")
    answer = connection.getresponse()
    assert answer.status == 404
    connection.close()
    return answer.getheader("connection") == "close"


def test_the_prestop_hook_sends_connections_away_and_leaves_the_end_to_kubernetes(tmp_path: Path) -> None:
    hook = container_of(named(build(FOLDER / "overlays" / "cpu"), "Deployment", ENVOY))["lifecycle"]["preStop"]["exec"]
    with envoy(tmp_path, "--drain-time-s", "1") as ports:
        assert not is_sent_away(ports[50051])
        finished = run(hook["command"], ports)
        assert finished.stdout.startswith("HTTP/1.1 200 OK"), finished.stdout + finished.stderr
        wait_until(lambda: is_sent_away(ports[50051]))  # at the latest when the drain time is over


def test_a_secret_that_the_kubelet_changes_is_shown_to_new_connections(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    first, second = authority.issue("llm.example"), authority.issue("llm.example")
    edge = SecretVolume(tmp_path / "tls", first.as_secret)
    SecretVolume(tmp_path / "upstream", {"ca.crt": authority.path.read_bytes()})
    with envoy(tmp_path, name="envoy-tls.yaml") as ports:
        address = ("127.0.0.1", ports[50051])
        wait_until(lambda: accepts(ports[50051]))
        assert shown_serial(address) == first.serial
        edge.put(second.as_secret)
        wait_until(lambda: shown_serial(address) == second.serial)
