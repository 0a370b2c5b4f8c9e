"""The very commands of compose and Kubernetes, started."""

from __future__ import annotations

import signal
import urllib.request
from pathlib import Path

import pytest

from support.deploy.commands import Command, of_compose, of_overlay, started
from support.deploy.secret_volume import SecretVolume
from support.servers.certificates import Authority, shown_serial
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from transparent_llm import connect
from transparent_llm.errors import AuthError

SECRETS = "/run/secrets/transparent-llm"


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


def test_with_tls_and_tokens_the_probe_needs_neither_and_secrets_may_change(tmp_path: Path) -> None:
    authority, bearer_tokens = Authority(tmp_path / "authority"), BearerTokenFile(tmp_path / "tokens.txt", "alice")
    first, second = (authority.issue("transparent-llm-servers", "localhost") for _ in range(2))
    certificate = SecretVolume(tmp_path / "tls", first.as_secret)
    access = SecretVolume(tmp_path / "tokens", {"tokens.txt": bearer_tokens.path.read_bytes()})
    places = {f"{SECRETS}/tls": certificate.folder, f"{SECRETS}/tokens": access.folder}
    with started(of_overlay("tls"), tmp_path, places) as server:
        server.await_serving()
        target = f"localhost:{server.ports['--listen']}"
        with connect(target, token=bearer_tokens.bearer_tokens["alice"], tls_ca=str(authority.path)) as llm:
            assert llm.model_info().name == "demo"
        with pytest.raises(AuthError):
            connect(target, tls_ca=str(authority.path))
        address = ("localhost", server.ports["--listen"])
        assert shown_serial(address) == first.serial
        certificate.put(second.as_secret)
        wait_until(lambda: shown_serial(address) == second.serial)
        newcomer = bearer_tokens.add("bob")
        access.put({"tokens.txt": bearer_tokens.path.read_bytes()})
        wait_until(lambda: is_let_in(target, newcomer, authority))


def is_let_in(target: str, token: str, authority: Authority) -> bool:
    try:
        connect(target, token=token, tls_ca=str(authority.path)).close()
    except AuthError:
        return False
    return True
