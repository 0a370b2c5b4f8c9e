"""Who calls from a page: by tokens as anywhere else, from an address that is the browser's own, over the same TLS."""

from __future__ import annotations

import base64
import http.client
import json
import ssl
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2

from support.network.grpc_web import WebAnswer, asked, frame, posted, web_call
from support.servers.certificates import Authority, shown_serial
from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import Listener, running
from transparent_llm.errors import InvalidRequestError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import RUN_KEY_HEADER, SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc import peer

RUN = requests.run(RunInput.of_tokens([[1, 2, 3]]), "").SerializeToString()
INFO = f"/{SERVICE}/ServerInfo"
ARRIVAL_S = 20.0


@pytest.fixture(scope="module")
def bearer_tokens(tmp_path_factory: pytest.TempPathFactory) -> BearerTokenFile:
    return BearerTokenFile(tmp_path_factory.mktemp("owners") / "tokens", "alice", "bob")


@pytest.fixture(scope="module")
def server(bearer_tokens: BearerTokenFile) -> Iterator[Server]:
    with running(tokens_file=bearer_tokens.path, page="127.0.0.1:0", request_arrival_s=ARRIVAL_S) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


def of(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def problem_of(answer: WebAnswer) -> str:
    assert answer.trailers["grpc-status"] == "16"
    rich = status_pb2.Status.FromString(base64.b64decode(answer.trailers["grpc-status-details-bin"]))
    info = error_details_pb2.ErrorInfo()
    rich.details[0].Unpack(info)
    return str(info.metadata["problem"])


def test_a_token_is_asked_for(server: Server, bearer_tokens: BearerTokenFile) -> None:
    page = server.page_address
    assert problem_of(web_call(page, "ServerInfo", b"")) == "missing"
    assert problem_of(web_call(page, "ServerInfo", b"", **of("wrong"))) == "unknown"
    assert problem_of(web_call(page, "ServerInfo", b"", authorization="Basic YTpi")) == "malformed"
    alice = of(bearer_tokens.bearer_tokens["alice"])
    assert web_call(page, "ServerInfo", b"", **alice).trailers["grpc-status"] == "0"
    assert asked(page, "/").status == 200  # the page itself has no secrets


def test_runs_are_their_owners(server: Server, bearer_tokens: BearerTokenFile) -> None:
    alice, bob = (of(bearer_tokens.bearer_tokens[name]) for name in ("alice", "bob"))
    ran = web_call(server.page_address, "Run", RUN, **alice)
    run_id = service_pb2.RunResponse.FromString(ran.messages[0]).run_id
    read = requests.of_method("logits", run_id).SerializeToString()
    assert web_call(server.page_address, "Logits", read, **alice).trailers["grpc-status"] == "0"
    assert web_call(server.page_address, "Logits", read, **bob).trailers["grpc-status"] == "5"


def test_a_call_without_a_token_is_refused_before_its_message_comes(server: Server) -> None:
    """Nobody holds memory here who may not call."""
    connection = http.client.HTTPConnection(server.page_address.removeprefix("http://"), timeout=ARRIVAL_S / 2)
    connection.putrequest("POST", INFO)
    connection.putheader("content-type", "application/grpc-web+proto")
    connection.putheader("content-length", "1000")
    connection.endheaders(b"\0\0")
    assert b"grpc-status: 16" in connection.getresponse().read()
    connection.close()


def test_health_needs_no_token_and_is_told_of_what_was_asked(server: Server) -> None:
    known, other = (health_pb2.HealthCheckRequest(service=name).SerializeToString() for name in (SERVICE, "nothing"))
    path = "/grpc.health.v1.Health/Check"
    assert posted(server.page_address, path, frame(known)).messages == [b"\x08\x01"]
    assert posted(server.page_address, path, frame(other)).trailers["grpc-status"] == "5"
    assert posted(server.page_address, path, frame(b"\0" * 2000)).trailers["grpc-status"] == "8"


@pytest.mark.parametrize("value", [b"Bearer a\tb", b"Bearer \xff", "Bearer ü".encode()])
@pytest.mark.parametrize("name", ["authorization", "traceparent"])
def test_what_metadata_cannot_have_is_told(server: Server, name: str, value: bytes) -> None:
    answer = web_call(server.page_address, "ServerInfo", b"", **{name: value.decode("latin-1")})
    assert answer.trailers["grpc-status"] == "3"
    assert answer.trailers["grpc-message"] == f"the header {name} has other characters than printable ASCII"


def test_only_some_headers_go_on() -> None:
    listener = Listener()
    with running(listener, page="127.0.0.1:0") as server:
        sent = {RUN_KEY_HEADER: "0123", "traceparent": "00-1-2-01", "cookie": "secret", "x-user-agent": "page"}
        sent[peer._FORWARDED] = f"{peer._SECRET} ipv4:192.0.2.1:1"
        web_call(server.page_address, "ServerInfo", b"", **sent)
    ((_, metadata),) = listener.calls
    assert metadata[RUN_KEY_HEADER] == "0123"
    assert metadata["traceparent"] == "00-1-2-01"
    assert metadata[peer._FORWARDED].split(" ")[1].startswith("ipv4:127.0.0.1:")
    assert not {"cookie", "x-user-agent", "host", "origin"} & set(metadata)


def test_records_have_the_browsers_address(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with running(page="127.0.0.1:0", audit_log=audit) as server:
        web_call(server.page_address, "ModelInfo", b"")
    calls = [json.loads(line) for line in audit.read_text().splitlines()]
    (address,) = [call["address"] for call in calls if call.get("method") == "ModelInfo"]
    assert address.startswith("ipv4:127.0.0.1:")


def test_nobody_else_is_believed_an_address(tmp_path: Path) -> None:
    audit = tmp_path / "audit"
    with running(audit_log=audit) as server, grpc.insecure_channel(server.address) as channel:
        call = channel.unary_unary(INFO)
        for secret in ("", "0" * 64, "ipv4:192.0.2.1:1"):
            call(b"", timeout=SOON, metadata=((peer._FORWARDED, f"{secret} ipv4:192.0.2.1:1"),))
    found = [json.loads(line) for line in audit.read_text().splitlines()]
    addresses = [call["address"] for call in found if call.get("method") == "ServerInfo"]
    assert len(addresses) == 3
    assert not any("192.0.2.1" in address for address in addresses)


def test_the_secret_is_what_is_believed() -> None:
    key, value = peer.forwarded("2001:db8::1", 7)
    assert key == peer._FORWARDED
    assert value.removeprefix(peer._SECRET) == " ipv6:[2001:db8::1]:7"
    assert peer.kind_of_peer("ipv6:[2001:db8::1]:7") == "remote"
    assert peer.kind_of_peer("ipv6:[::1]:7") == "loopback"


# Protection


def test_a_page_that_others_can_reach_needs_protection(tmp_path: Path, authority: Authority) -> None:
    tokens = BearerTokenFile(tmp_path / "tokens", "alice")
    pair = authority.issue("localhost")
    with pytest.raises(InvalidRequestError, match=r"0\.0\.0\.0:0 can be reached from other hosts, and everybody"):
        Server(ServerConfig(listen="127.0.0.1:0", page="0.0.0.0:0"))
    with pytest.raises(InvalidRequestError, match="tokens would be sent in the clear"):
        Server(ServerConfig(listen="unix:/tmp/x", page="0.0.0.0:0", tokens_file=tokens.path))
    for protected in ({"tokens_file": tokens.path, **pair.as_server}, {"insecure": True}):
        Server(ServerConfig(listen="127.0.0.1:0", page="0.0.0.0:0", **protected))


def test_certificates_alone_do_not_say_whose_a_pages_calls_are(authority: Authority) -> None:
    pair = authority.issue("localhost")
    with pytest.raises(InvalidRequestError, match="page needs --tokens where there is --tls-client-ca"):
        Server(ServerConfig(page="127.0.0.1:0", **pair.as_server, tls_client_ca=authority.path))


def test_the_page_has_the_servers_certificate_also_when_that_changes(authority: Authority) -> None:
    pair, later = authority.issue("localhost", "127.0.0.1"), authority.issue("localhost", "127.0.0.1")
    trust = ssl.create_default_context(cafile=str(authority.path))
    with running(page="127.0.0.1:0", **pair.as_server) as server:
        assert server.page_address.startswith("https://127.0.0.1:")
        assert asked(server.page_address, "/", context=trust).status == 200
        host, _, port = server.page_address.removeprefix("https://").rpartition(":")
        assert shown_serial((host, int(port))) == pair.serial
        pair.cert.write_bytes(later.cert.read_bytes())
        pair.key.write_bytes(later.key.read_bytes())
        wait_until(lambda: shown_serial((host, int(port))) == later.serial)
        with pytest.raises((OSError, AssertionError)):
            asked(server.page_address.replace("https", "http"), "/")


def test_a_page_asks_for_client_certificates_where_the_server_does(tmp_path: Path, authority: Authority) -> None:
    tokens, revoked = BearerTokenFile(tmp_path / "tokens", "alice"), tmp_path / "revoked"
    pair, mine, lost = (
        authority.issue("localhost", "127.0.0.1"),
        authority.issue("me.example"),
        authority.issue("x.example"),
    )
    revoked.write_text(f"serial:{lost.serial:x}\n")
    settings = {"tokens_file": tokens.path, "revoked_file": revoked, "tls_client_ca": authority.path, **pair.as_server}
    alice = of(tokens.bearer_tokens["alice"])
    with running(page="127.0.0.1:0", **settings) as server:

        def called(client: ssl.SSLContext) -> WebAnswer:
            return web_call(server.page_address, "ServerInfo", b"", client, **alice)

        context = ssl.create_default_context(cafile=str(authority.path))
        with pytest.raises((ssl.SSLError, ConnectionError)):
            called(context)
        context.load_cert_chain(mine.cert, mine.key)
        assert called(context).trailers["grpc-status"] == "0"
        without = web_call(server.page_address, "ServerInfo", b"", context)
        assert problem_of(without) == "missing"
        assert "a call of a page needs a token" in without.trailers["grpc-message"]
        of_lost = ssl.create_default_context(cafile=str(authority.path))
        of_lost.load_cert_chain(lost.cert, lost.key)
        assert problem_of(called(of_lost)) == "revoked"
