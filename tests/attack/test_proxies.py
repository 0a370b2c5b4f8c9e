"""Prompts and tokens go to no proxy that nobody asked for: a real one on loopback keeps what it was asked."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.network.http_proxy import HttpProxy, http_proxy
from support.servers.certificates import Authority, Pair
from support.servers.collector import collecting
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, connect, errors
from transparent_llm.testing import serve_in_process

SPELLINGS = (
    *("grpc_proxy", "https_proxy", "http_proxy", "all_proxy"),
    *("GRPC_PROXY", "HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY"),
)
PUBLIC = "models.example.com:443"
PLAIN = "models.example.com:50051"


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpProxy]:
    """A proxy that refuses everybody, named by the environment in every spelling there is."""
    with http_proxy() as proxy:
        name_everywhere(proxy, monkeypatch)
        yield proxy


def name_everywhere(proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SPELLINGS:
        monkeypatch.setenv(name, proxy.url)
    for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "NO_GRPC_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY", proxy.address)
    monkeypatch.setenv("GRPC_ADDRESS_HTTP_PROXY_ENABLED_ADDRESSES", "0.0.0.0/0,::/0")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def public(authority: Authority) -> Pair:
    return authority.issue("models.example.com")


# Loopback and private targets


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "localhost:0", "[::1]:0"])
def test_calls_to_loopback_go_to_no_proxy(listen: str, proxy: HttpProxy) -> None:
    with running(listen=listen) as server, connect(server.address, token="s3cret") as llm:
        llm.run(["What say you?"])
        llm.residual_out(1)
        assert llm.is_serving()
    assert proxy.heads == []


def test_calls_to_loopback_by_tls_go_to_no_proxy(authority: Authority, proxy: HttpProxy) -> None:
    with running(**authority.issue("localhost").as_server) as server:
        with connect(server.address, tls_ca=str(authority.path)) as llm:
            llm.run(["What say you?"])
    assert proxy.heads == []


def test_neither_do_calls_to_a_socket_file_nor_within_a_process(tmp_path: Path, proxy: HttpProxy) -> None:
    with running(listen=f"unix:{tmp_path}/socket") as server, connect(server.address, proxy=proxy.url) as llm:
        llm.run(["What say you?"])
        with serve_in_process(llm) as inner:
            inner.run(["What say you?"])
    assert proxy.heads == []


def test_calls_to_a_name_of_the_private_network_go_to_no_proxy(proxy: HttpProxy) -> None:
    name = socket.gethostname()
    if socket.gethostbyname(name) != "127.0.0.1":
        pytest.skip(f"{name} is not this machine by loopback")
    with running(listen="127.0.0.1:0") as server:
        port = server.address.rpartition(":")[2]
        with connect(f"{name}:{port}", token="s3cret") as llm:
            llm.run(["What say you?"])
    assert proxy.heads == []


def test_a_proxy_that_was_not_used_is_named_where_no_server_answers(proxy: HttpProxy) -> None:
    with RemoteTransparentLlm("nobody.invalid:50051", timeout_s=20, token="s3cret") as llm:
        with pytest.raises(errors.UnavailableError) as caught:
            llm.model_info()
    assert "through the proxy" not in str(caught.value)
    assert str(caught.value).endswith(
        '; grpc_proxy names a proxy, which was not used: set proxy="environment" if it leads to this server'
    )
    assert proxy.heads == []


def test_the_command_line_and_the_demo_ask_no_proxy(proxy: HttpProxy) -> None:
    with running() as server:
        for arguments in (["health", "--target", server.address], ["demo"]):
            command = [sys.executable, "-m", "transparent_llm", *arguments]
            environment = {**os.environ, "TRANSPARENT_LLM_PROXY": "environment" if arguments == ["demo"] else ""}
            finished = subprocess.run(command, capture_output=True, text=True, timeout=240, env=environment)
            assert finished.returncode == 0, finished.stderr
    assert proxy.heads == []


def test_a_containers_health_command_asks_no_proxy(proxy: HttpProxy) -> None:
    script = Path(__file__).parents[2] / "deploy" / "docker" / "is_serving.py"
    with running() as server:
        subprocess.run([sys.executable, str(script), server.address], check=True, timeout=60)
    assert proxy.heads == []


def test_traces_go_to_no_proxy(proxy: HttpProxy) -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with connect(server.address) as llm:
            llm.run(["What say you?"])
        collector.spans("Run")
    assert proxy.heads == []


# Those that were asked


@pytest.mark.parametrize("way", ["url", "bare", "environment", "variable"])
def test_a_proxy_that_was_asked_for_makes_a_tunnel(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server, http_proxy(leads_to=server.address) as proxy:
        name_everywhere(proxy, monkeypatch)
        if way == "variable":
            monkeypatch.setenv("TRANSPARENT_LLM_PROXY", proxy.url)
        wanted = {"url": proxy.url, "bare": proxy.address, "environment": "environment", "variable": None}[way]
        with connect(PLAIN, proxy=wanted) as llm:
            llm.run(["What say you?"])
    assert [head.splitlines()[0] for head in proxy.heads] == [f"CONNECT {PLAIN} HTTP/1.1"]


def test_public_targets_by_tls_take_the_environments_proxy_and_tell_it_nothing(
    authority: Authority, public: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(**public.as_server) as server, http_proxy(leads_to=server.address) as proxy:
        name_everywhere(proxy, monkeypatch)
        with connect(PUBLIC, tls_ca=str(authority.path), token="s3cret") as llm:
            llm.run(["What say you?"])
    assert len(proxy.heads) == 1
    assert proxy.heads[0].startswith(f"CONNECT {PUBLIC} HTTP/1.1\r\n")
    assert "s3cret" not in proxy.heads[0]


def test_a_password_goes_to_the_proxy_alone_and_into_no_error() -> None:
    with (
        http_proxy() as proxy,
        RemoteTransparentLlm(PLAIN, proxy=f"http://me:s3cret@{proxy.address}", timeout_s=20) as llm,
    ):
        with pytest.raises(errors.UnavailableError) as caught:
            llm.model_info()
        assert "s3cret" not in repr(llm)
        assert "s3cret" not in repr(llm._config)
    assert "Proxy-Authorization: Basic bWU6czNjcmV0" in proxy.heads[0].replace(
        "Authorization:Basic", "Authorization: Basic"
    )
    assert f"no server answers at {PLAIN} through the proxy {proxy.url} (" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    assert caught.value.metadata["proxy"] == proxy.url
    assert caught.value.metadata["target"] == PLAIN


def test_what_no_proxy_names_goes_directly_even_if_one_was_asked_for(
    proxy: HttpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(listen="127.0.0.1:0") as server:
        monkeypatch.setenv("NO_PROXY", "example.org, 127.0.0.0/8")
        with connect(server.address, proxy=proxy.url) as llm:
            llm.run(["What say you?"])
    assert proxy.heads == []
