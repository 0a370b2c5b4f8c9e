"""The commands of compose and Kubernetes as server processes: only addresses and folders are this machine's."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.deploy.manifests import FOLDER, ROOT, SERVER, build, container_of, named, read_yaml
from support.network.ports import free_ports
from support.servers.polling import wait_until

IS_SERVING = ROOT / "deploy" / "docker" / "is_serving.py"
SETTINGS = "/etc/transparent-llm/server.toml"


@dataclass(frozen=True)
class Command:
    """What a container runs."""

    arguments: list[str]
    environment: dict[str, str]
    settings: str


def of_overlay(overlay: str) -> Command:
    objects = build(FOLDER / "overlays" / overlay)
    container = container_of(named(objects, "Deployment", SERVER))
    environment = {variable["name"]: variable["value"] for variable in container["env"]}
    settings = named(objects, "ConfigMap", "transparent-llm-server-settings")["data"]["server.toml"]
    return Command(container["args"], environment, settings)


def of_compose() -> Command:
    service = read_yaml((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))["services"]["server"]
    settings = (ROOT / "deploy" / "server" / "server.toml").read_text(encoding="utf-8")
    return Command(service["command"], service["environment"], settings)


@dataclass(frozen=True)
class Started:
    """A server of such a command."""

    process: subprocess.Popen[bytes]
    ports: dict[str, int]
    log: Path

    def is_serving(self) -> bool:
        asked = [sys.executable, IS_SERVING, f"127.0.0.1:{self.ports['--probe-listen']}"]
        return subprocess.run(asked, capture_output=True, timeout=60).returncode == 0

    def await_serving(self) -> None:
        wait_until(lambda: self.is_serving() or self.process.poll() is not None, within_s=120)
        assert self.process.poll() is None, self.log.read_text()


@contextmanager
def started(command: Command, folder: Path, places: dict[str, Path]) -> Iterator[Started]:
    """Its folders of secrets are elsewhere here; `places` says where."""
    (folder / "server.toml").write_text(command.settings)
    ports, arguments, free = {}, [], free_ports(len(command.arguments))
    for argument in command.arguments:
        flag, equals, value = argument.partition("=")
        if flag.endswith("listen"):
            ports[flag] = free.pop()
            value = f"127.0.0.1:{ports[flag]}"
        for place, here in {SETTINGS: folder / "server.toml", **places}.items():
            value = value.replace(place, str(here))
        arguments.append(flag + equals + value)
    log = folder / "server.log"
    with log.open("wb") as output:
        given = {name: value for name, value in command.environment.items() if value is not None}  # others pass on
        environment = {**os.environ, **given, "PYTHONPATH": os.pathsep.join(sys.path)}
        whole = [sys.executable, "-m", "transparent_llm", *arguments]
        process = subprocess.Popen(whole, stdout=output, stderr=output, env=environment)
    try:
        yield Started(process, ports, log)
    finally:
        process.kill()
        process.wait()
