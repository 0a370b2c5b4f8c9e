"""A second port with the health service alone, for probes without certificates and tokens."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.servers.owners import BearerTokenFile
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import AuthError, InvalidRequestError, NotSupportedError
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

Response = health_pb2.HealthCheckResponse


def health_at(address: str) -> int:
    with grpc.insecure_channel(address) as channel:
        status: int = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10).status
    return status


def test_a_probe_follows_the_servers_life() -> None:
    server = Server(ServerConfig(listen="127.0.0.1:0", probe_listen="127.0.0.1:0"))
    server.start()
    try:
        assert health_at(server.probe_address) == Response.NOT_SERVING
        server.ready()
        assert health_at(server.probe_address) == Response.SERVING
    finally:
        server.stop()
    with pytest.raises(grpc.RpcError):
        health_at(server.probe_address)


def test_probes_bring_no_token_and_get_nothing_else(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(probe_listen="127.0.0.1:0", tokens_file=file.path) as server:
        assert health_at(server.probe_address) == Response.SERVING
        with RemoteTransparentLlm(server.probe_address) as llm, pytest.raises(NotSupportedError):
            llm.model_info()
        with RemoteTransparentLlm(server.address) as llm, pytest.raises(AuthError):
            llm.model_info()


def test_a_taken_port_is_told() -> None:
    with running(probe_listen="127.0.0.1:0") as first:
        second = Server(ServerConfig(listen="127.0.0.1:0", probe_listen=first.probe_address))
        try:
            with pytest.raises(InvalidRequestError, match=f"cannot listen on {first.probe_address} for probes"):
                second.start()
        finally:
            second.stop()
