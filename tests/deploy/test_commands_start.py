"""The very commands of compose and Kubernetes, started."""

from __future__ import annotations

import signal
import ssl
import urllib.request
from pathlib import Path

import pytest
from cryptography import x509

from support.certificates import Authority, Pair
from support.commands import Command, of_compose, of_overlay, started
from support.owners import TokenFile
from support.polling import wait_until
from support.secret_volume import SecretVolume
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
    authority, tokens = Authority(tmp_path / "authority"), TokenFile(tmp_path / "tokens.txt", "alice")
    first, second = (authority.issue("transparent-llm-servers", "localhost") for _ in range(2))
    certificate = SecretVolume(tmp_path / "tls", as_secret(first))
    access = SecretVolume(tmp_path / "tokens", {"tokens.txt": tokens.path.read_bytes()})
    places = {f"{SECRETS}/tls": certificate.folder, f"{SECRETS}/tokens": access.folder}
    with started(of_overlay("tls"), tmp_path, places) as server:
        server.await_serving()
        target = f"localhost:{server.ports['--listen']}"
        with connect(target, token=tokens.tokens["alice"], tls_ca=str(authority.path)) as llm:
            assert llm.model_info().name == "demo"
        with pytest.raises(AuthError):
            connect(target, tls_ca=str(authority.path))
        assert shown_serial(target) == first.serial
        certificate.put(as_secret(second))
        wait_until(lambda: shown_serial(target) == second.serial)
        newcomer = tokens.add("bob")
        access.put({"tokens.txt": tokens.path.read_bytes()})
        wait_until(lambda: is_let_in(target, newcomer, authority))


def as_secret(pair: Pair) -> dict[str, bytes]:
    return {"tls.crt": pair.cert.read_bytes(), "tls.key": pair.key.read_bytes()}


def shown_serial(target: str) -> int:
    """Of the certificate that a new connection is shown."""
    host, _, port = target.rpartition(":")
    return x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port))).encode()).serial_number


def is_let_in(target: str, token: str, authority: Authority) -> bool:
    try:
        connect(target, token=token, tls_ca=str(authority.path)).close()
    except AuthError:
        return False
    return True
