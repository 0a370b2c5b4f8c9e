"""TLS at the edge and towards the replicas, tokens through both, and probes that need neither."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cluster.load import expected, rows
from support.deploy.envoy import Envoy, envoy
from support.deploy.envoy import install as install_config
from support.models.tensors import assert_same_bits
from support.servers.certificates import Authority, Pair
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.replicas import Replica, replicas
from transparent_llm import RemoteTransparentLlm, errors

pytestmark = pytest.mark.measured

REPLICA_NAME = "transparent-llm-servers"


@dataclass(frozen=True)
class Edge:
    proxy: Envoy
    replica: Replica
    outside: Authority
    folder: Path
    token: str

    def connect(self, token: str) -> RemoteTransparentLlm:
        target = f"localhost:{self.proxy.address.rpartition(':')[2]}"
        return RemoteTransparentLlm(target, tls_ca=str(self.outside.path), token=token, timeout_s=30)


def install(pair: Pair, folder: Path) -> None:
    """Both files whole, as an operator's tool does."""
    folder.mkdir(exist_ok=True)
    for source, name in ((pair.key, "tls.key"), (pair.cert, "tls.crt")):
        (folder / "new").write_bytes(source.read_bytes())
        os.replace(folder / "new", folder / name)


@pytest.fixture(scope="module")
def edge(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edge]:
    folder = tmp_path_factory.mktemp("edge")
    outside, inside = Authority(folder / "outside"), Authority(folder / "inside")
    file, own = BearerTokenFile(folder / "tokens", "alice"), inside.issue(REPLICA_NAME)
    install(outside.issue("localhost"), folder / "tls")
    (folder / "upstream").mkdir()
    (folder / "upstream" / "ca.crt").write_bytes(inside.path.read_bytes())
    access = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--tokens", str(file.path))
    with replicas(1, folder, *access) as (replica,), before(replica, folder, folder) as proxy:
        yield Edge(proxy, replica, outside, folder, file.bearer_tokens["alice"])


@contextmanager
def before(replica: Replica, files: Path, folder: Path) -> Iterator[Envoy]:
    install_config(files)
    port, probe_port = (int(address.rpartition(":")[2]) for address in (replica.address, replica.probes))
    options = {"host": replica.host, "name": "envoy-tls.yaml", "files": str(files)}
    with envoy(port, folder / "envoy", probe_port=probe_port, **options) as proxy:
        proxy.await_healthy(replica.host)
        yield proxy


def test_values_come_through(edge: Edge) -> None:
    with edge.connect(edge.token) as llm:
        llm.run_tokens(rows(1))
        assert_same_bits(llm.logits(), expected(1)[("logits",)])


def test_a_wrong_token_is_the_replicas_to_refuse(edge: Edge) -> None:
    with edge.connect("wrong") as llm, pytest.raises(errors.AuthError, match="does not know the token"):
        llm.model_info()


def test_who_does_not_speak_tls_is_not_heard(edge: Edge) -> None:
    with RemoteTransparentLlm(edge.proxy.address, token=edge.token) as llm, pytest.raises(errors.UnavailableError):
        llm.model_info()


def test_probes_need_no_certificate_and_learn_nothing_else(edge: Edge) -> None:
    with grpc.insecure_channel(edge.replica.probes) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    with RemoteTransparentLlm(edge.replica.probes) as llm, pytest.raises(errors.NotSupportedError):
        llm.model_info()


def test_a_replica_of_another_authority_gets_no_calls(edge: Edge, tmp_path: Path) -> None:
    (tmp_path / "tls").symlink_to(edge.folder / "tls")
    (tmp_path / "upstream").mkdir()
    (tmp_path / "upstream" / "ca.crt").write_bytes(Authority(tmp_path / "stranger").path.read_bytes())
    with before(edge.replica, tmp_path, tmp_path) as proxy:
        with replace(edge, proxy=proxy).connect(edge.token) as llm, pytest.raises(errors.UnavailableError):
            llm.model_info()
        assert proxy.statistic("cluster.replicas.ssl.fail_verify_error")
        assert not proxy.statistic("cluster.replicas.ssl.handshake")


def test_a_new_edge_certificate_is_taken_up(edge: Edge) -> None:
    renewed = edge.outside.issue("localhost")
    assert serial(edge) != renewed.serial
    install(renewed, edge.folder / "tls")
    wait_until(lambda: serial(edge) == renewed.serial)


def serial(edge: Edge) -> int:
    """Of the certificate that the edge shows now."""
    context = ssl.create_default_context(cafile=str(edge.outside.path))
    port = int(edge.proxy.address.rpartition(":")[2])
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as speaking:
            shown = speaking.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number
