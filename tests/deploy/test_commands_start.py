"""The very commands of compose and Kubernetes, started: only addresses and folders are this machine's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.certificates import Authority
from support.manifests import FOLDER, ROOT, SERVER, build, container_of, named, read_yaml
from support.owners import TokenFile
from support.polling import wait_until
from transparent_llm import connect
from transparent_llm.errors import AuthError

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
        wait_until(lambda: self.is_serving() or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        return int(held.getsockname()[1])


@contextmanager
def started(command: Command, folder: Path, files: dict[str, Path]) -> Iterator[Started]:
    """Its files are elsewhere here; `files` says where."""
    (folder / "server.toml").write_text(command.settings)
    ports, arguments = {}, []
    for argument in command.arguments:
        flag, equals, value = argument.partition("=")
        if flag.endswith("listen"):
            ports[flag] = free_port()
            value = f"127.0.0.1:{ports[flag]}"
        arguments.append(flag + equals + str({SETTINGS: folder / "server.toml", **files}.get(value, value)))
    log = folder / "server.log"
    with log.open("wb") as output:
        environment = {**os.environ, **command.environment, "PYTHONPATH": os.pathsep.join(sys.path)}
        whole = [sys.executable, "-m", "transparent_llm", *arguments]
        process = subprocess.Popen(whole, stdout=output, stderr=output, env=environment)
    try:
        yield Started(process, ports, log)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("command", [of_compose(), of_overlay("cpu")], ids=["compose", "kubernetes"])
def test_the_command_serves_probes_metrics_and_leaves_in_order(command: Command, tmp_path: Path) -> None:
    with started(command, tmp_path, {}) as server:
        server.await_serving()
        with connect(f"127.0.0.1:{server.ports['--listen']}") as llm:
            llm.run(["My lord, the king"])
            with urllib.request.urlopen(
                f"http://127.0.0.1:{server.ports['--metrics-listen']}/metrics", timeout=30
            ) as page:
                assert "transparent_llm_active_calls" in page.read().decode()
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not server.is_serving())
            assert llm.logits().shape[0] == 1  # announced, and still answering
        assert server.process.poll() is None


def test_with_tls_and_tokens_the_probe_needs_neither(tmp_path: Path) -> None:
    authority, tokens = Authority(tmp_path / "authority"), TokenFile(tmp_path / "tokens.txt", "alice")
    pair = authority.issue("transparent-llm-servers", "localhost")
    place = "/run/secrets/transparent-llm"
    files = {
        f"{place}/tls/tls.crt": pair.cert,
        f"{place}/tls/tls.key": pair.key,
        f"{place}/tokens/tokens.txt": tokens.path,
    }
    with started(of_overlay("tls"), tmp_path, files) as server:
        server.await_serving()
        target = f"localhost:{server.ports['--listen']}"
        with connect(target, token=tokens.tokens["alice"], tls_ca=str(authority.path)) as llm:
            assert llm.model_info().name == "demo"
        with pytest.raises(AuthError):
            connect(target, tls_ca=str(authority.path))
