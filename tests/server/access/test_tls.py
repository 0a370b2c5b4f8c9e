"""TLS both ways with real certificates: what is refused, how that is said, and what changes while the server runs."""

from __future__ import annotations

import logging
import os
import socket
import ssl
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from support.servers.certificates import Authority, Pair
from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm, connect, errors
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

PROMPT = 10.0
"""Seconds within which a failed handshake must be told; the call itself may take 300."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def own(authority: Authority) -> Pair:
    return authority.issue("localhost")


def refused(target: str, **options: Any) -> errors.UnavailableError:
    """How a client is told that there is no connection, long before its time is over."""
    with RemoteTransparentLlm(target, timeout_s=300, **options) as llm:
        with pytest.raises(errors.UnavailableError) as caught:
            llm.model_info()
    assert target in str(caught.value)
    return caught.value


# Servers


def test_a_trusted_server_answers(authority: Authority, own: Pair) -> None:
    with running(**own.as_server) as server:
        with RemoteTransparentLlm(server.address, tls_ca=str(authority.path)) as llm:
            llm.run_tokens([[1, 2]])
            local = tiny().copy()
            local.run_tokens([[1, 2]])
            assert torch.equal(llm.logits(), local.logits())


def test_a_server_of_a_foreign_authority_is_not_trusted(own: Pair, stranger: Authority) -> None:
    with running(**own.as_server) as server:
        told = refused(server.address, tls_ca=str(stranger.path))
    assert str(told).startswith(
        f"no connection to {server.address}: its certificate was not accepted: no authority in tls_ca has signed it ("
    )


def test_a_server_of_another_name_is_not_trusted(authority: Authority) -> None:
    with running(**authority.issue("gpu-box.example").as_server) as server:
        told = refused(server.address, tls_ca=str(authority.path))
    assert "its certificate was not accepted: it was issued for a name other than the target's (" in str(told)


def test_a_server_whose_certificate_has_expired_is_not_trusted(authority: Authority) -> None:
    with running(**authority.issue("localhost", expired=True).as_server) as server:
        told = refused(server.address, tls_ca=str(authority.path))
    assert "its certificate was not accepted, as it has expired; its operator must renew it (" in str(told)


def test_a_server_without_tls_is_not_spoken_to_with_tls(authority: Authority) -> None:
    with running() as server:
        told = refused(server.address, tls_ca=str(authority.path), token="secret")
    assert "it does not speak TLS; leave out tls_ca, or turn on TLS there (" in str(told)


def test_a_server_with_tls_answers_nobody_without(own: Pair) -> None:
    with running(**own.as_server) as server:
        told = refused(server.address)
    assert "it closed the connection at once; is it up, and does it require TLS (tls_ca)" in str(told)


# Clients


@pytest.fixture(scope="module")
def mutual(authority: Authority, own: Pair) -> dict[str, Any]:
    return {**own.as_server, "tls_client_ca": authority.path}


def test_a_client_with_a_certificate_is_its_owner(
    mutual: dict[str, Any], authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    alice, bob = authority.issue("a.example", common_name="alice"), authority.issue("bob.example", "b.example")
    ca = str(authority.path)
    with caplog.at_level(logging.INFO, "transparent_llm_server"), running(**mutual) as server:
        with (
            connect(server.address, tls_ca=ca, **alice.as_client) as first,
            connect(server.address, tls_ca=ca, **bob.as_client) as second,
        ):
            first.run_tokens([[1, 2]])
            assert first.server_info().stored_runs == 1
            assert second.server_info().stored_runs == 0
        wait_until(lambda: caplog.text.count("ServerInfo OK") == 4)
    owners = {record.getMessage().rpartition(" of ")[2] for record in caplog.records if "access_log" in record.name}
    assert owners == {"CN=alice", "SAN=bob.example"}


@pytest.mark.parametrize("kind", ["missing", "foreign", "expired", "without TLS"])
def test_a_client_whose_certificate_will_not_do_is_refused(
    kind: str, mutual: dict[str, Any], authority: Authority, stranger: Authority
) -> None:
    options: dict[str, Any] = {
        "missing": {},
        "foreign": stranger.issue("a.example", common_name="alice").as_client,
        "expired": authority.issue("a.example", common_name="alice", expired=True).as_client,
        "without TLS": {},
    }[kind]
    if kind != "without TLS":
        options = {**options, "tls_ca": str(authority.path)}
    with running(**mutual) as server:
        told = refused(server.address, **options)
        with RemoteTransparentLlm(server.address, **options) as llm:
            assert not llm.is_serving()  # health is no way in: TLS comes first
    assert "it closed the connection at once; is it up, and does it require TLS (tls_ca) or another client" in str(told)


@pytest.mark.parametrize(
    ("names", "common_name", "told"),
    [
        (("x" * 60 + ".example",), "two\nlines", "the CN of the client certificate is unprintable or over 200 long"),
        ((), "", "the client certificate has no common name and no subject alternative name: get one that has"),
    ],
    ids=["unprintable", "none"],
)
def test_a_certificate_that_names_nobody_is_refused(
    names: tuple[str, ...], common_name: str, told: str, mutual: dict[str, Any], authority: Authority
) -> None:
    nobody = authority.issue(*names, common_name=common_name) if names else authority.issue_without_a_name()
    with running(**mutual) as server:
        with RemoteTransparentLlm(server.address, tls_ca=str(authority.path), **nobody.as_client) as llm:
            with pytest.raises(errors.AuthError) as caught:
                llm.model_info()
    assert str(caught.value) == told


def test_a_token_says_more_than_a_certificate(
    mutual: dict[str, Any], authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The certificate's holder has the name of a token's owner: another owner nevertheless."""
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    options = {"tls_ca": str(authority.path), **authority.issue("a.example", common_name="alice").as_client}
    with running(**mutual, tokens_file=file.path) as server:
        with (
            RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"], **options) as by_token,
            RemoteTransparentLlm(server.address, **options) as by_certificate,
            RemoteTransparentLlm(server.address, token="wrong", **options) as by_wrong_token,
        ):
            by_token.run_tokens([[1, 2]])
            assert by_token.server_info().stored_runs == 1
            assert by_certificate.server_info().stored_runs == 0
            with pytest.raises(errors.AuthError, match="does not know the token"):
                by_wrong_token.model_info()


# Rotation


def served_serial(address: str) -> int:
    """The serial number of the certificate that a new connection gets."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SOON) as raw:
        with context.wrap_socket(raw, server_hostname="localhost") as wrapped:
            der = wrapped.getpeercert(binary_form=True)
    assert der is not None
    return x509.load_der_x509_certificate(der).serial_number


def replace(path: Path, data: bytes) -> None:
    new = path.with_suffix(".new")
    new.write_bytes(data)
    os.replace(new, path)


def copied(pair: Pair, folder: Path) -> Pair:
    copy = Pair(folder / "server.pem", folder / "server.key")
    copy.cert.write_bytes(pair.cert.read_bytes())
    copy.key.write_bytes(pair.key.read_bytes())
    return copy


def test_a_renewed_certificate_is_shown_to_new_connections_and_old_ones_go_on(
    authority: Authority, own: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, renewed = copied(own, tmp_path), authority.issue("localhost")
    with running(**files.as_server) as server, connect(server.address, tls_ca=str(authority.path)) as llm:
        llm.run_tokens([[1, 2]])
        assert served_serial(server.address) == own.serial
        replace(files.cert, renewed.cert.read_bytes())  # for a moment the key is another's
        with caplog.at_level(logging.WARNING, "transparent_llm_server"):
            assert served_serial(server.address) == own.serial
        assert "what was read before stays in effect" in caplog.text
        assert "PRIVATE KEY" not in caplog.text
        replace(files.key, renewed.key.read_bytes())
        assert served_serial(server.address) == renewed.serial
        assert llm.batch_size() == 1
        assert llm.residual_in(0).shape == (1, 2, 64)
        with connect(server.address, tls_ca=str(authority.path)) as new:
            assert new.model_info().name == "tiny"


def test_another_authority_of_clients_counts_for_new_connections(
    own: Pair, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    trusted = tmp_path / "clients.pem"
    trusted.write_bytes(authority.path.read_bytes())
    old, new = (a.issue("a.example", common_name="alice").as_client for a in (authority, stranger))
    ca = {"tls_ca": str(authority.path)}
    with running(**own.as_server, tls_client_ca=trusted) as server:
        connect(server.address, **ca, **old).close()
        refused(server.address, **ca, **new)
        replace(trusted, stranger.path.read_bytes())
        connect(server.address, **ca, **new).close()
        refused(server.address, **ca, **old)


# Files that will not do


def encrypted(key: bytes) -> bytes:
    loaded = serialization.load_pem_private_key(key, None)
    return loaded.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )


@pytest.fixture
def files(own: Pair, tmp_path: Path) -> Pair:
    return copied(own, tmp_path)


BREAK: dict[str, tuple[Callable[[Pair], object], str]] = {
    "no certificate": (lambda files: files.cert.unlink(), "cannot read {cert}: No such file or directory"),
    "no key": (lambda files: files.key.unlink(), "cannot read {key}: No such file or directory"),
    "garbage": (lambda files: files.cert.write_text("garbage"), "{cert} has no certificate in PEM form ("),
    "key for certificate": (
        lambda files: files.cert.write_bytes(files.key.read_bytes()),
        "{cert} has no certificate in PEM form (",
    ),
    "garbage for key": (
        lambda files: files.key.write_text("garbage"),
        "{key} is not the unencrypted PEM private key of the first certificate in {cert} (",
    ),
    "encrypted key": (
        lambda files: files.key.write_bytes(encrypted(files.key.read_bytes())),
        "{key} is not the unencrypted PEM private key of the first certificate in {cert} (it is encrypted)",
    ),
    "another's key": (
        lambda files: files.key.write_bytes(trustme.CA().issue_cert("localhost").private_key_pem.bytes()),
        "{key} is not the unencrypted PEM private key of the first certificate in {cert} (KEY_VALUES_MISMATCH)",
    ),
}


@pytest.mark.parametrize("how", BREAK)
def test_a_server_does_not_start_with_files_that_do_not_fit(how: str, files: Pair) -> None:
    spoil, told = BREAK[how]
    spoil(files)
    with pytest.raises(errors.InvalidRequestError) as caught:
        Server(ServerConfig(**files.as_server))
    assert str(caught.value).startswith(told.format(cert=files.cert, key=files.key))


def test_a_server_does_not_start_with_half_of_what_tls_needs(files: Pair) -> None:
    for half in ({"tls_cert": files.cert}, {"tls_key": files.key}, {"tls_client_ca": files.cert}):
        with pytest.raises(errors.InvalidRequestError, match="TLS requires both --tls-cert and --tls-key"):
            Server(ServerConfig(**half))


def test_a_server_does_not_start_with_authorities_that_are_none(files: Pair) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        Server(ServerConfig(**files.as_server, tls_client_ca=files.key))
    assert str(caught.value).startswith(f"{files.key} has no certificate in PEM form (")


def test_a_ca_file_of_a_client_that_is_none_is_named(tmp_path: Path, own: Pair) -> None:
    for path in (tmp_path / "none.pem", own.key):
        with RemoteTransparentLlm("localhost:1", tls_ca=str(path)) as llm:
            with pytest.raises(errors.InvalidRequestError, match=f"cannot read the CA certificates: {path}: "):
                llm.model_info()


@pytest.mark.parametrize("how", list(BREAK))
def test_files_of_a_client_that_do_not_fit_are_named(how: str, files: Pair, authority: Authority) -> None:
    BREAK[how][0](files)
    with RemoteTransparentLlm("localhost:1", tls_ca=str(authority.path), **files.as_client) as llm:
        with pytest.raises(errors.InvalidRequestError) as caught:
            llm.model_info()
    assert str(caught.value).startswith(f"cannot use the client certificate {files.cert} with the key {files.key}: ")


@pytest.mark.parametrize("half", ["tls_cert", "tls_key"])
def test_a_client_needs_a_certificate_and_its_key(half: str, authority: Authority, files: Pair) -> None:
    with pytest.raises(errors.InvalidRequestError, match="requires both tls_cert and tls_key"):
        RemoteTransparentLlm("localhost:1", tls_ca=str(authority.path), **{half: files.as_client[half]})


def test_a_client_shows_its_certificate_over_tls_only(files: Pair) -> None:
    with pytest.raises(errors.InvalidRequestError, match="set tls_ca to the server's CA file"):
        RemoteTransparentLlm("localhost:1", **files.as_client)


# Being reached by others


OPEN = "and everybody there could use the models: require tokens over TLS (--tokens, --tls-cert, --tls-key)"
CLEAR = "and tokens would be sent in the clear: add --tls-cert and --tls-key"
EXPOSED = ["0.0.0.0:0", "[::]:0", ":0", "192.0.2.1:0", "[2001:db8::1]:0", "no-such-host.invalid:0", "unix-abstract:x"]


@pytest.mark.parametrize("listen", EXPOSED)
def test_nobody_is_let_in_from_outside_without_a_word(listen: str, files: Pair, tmp_path: Path) -> None:
    bearer_tokens = BearerTokenFile(tmp_path / "tokens", "alice").path
    for settings, told in (({}, OPEN), (files.as_server, OPEN), ({"tokens_file": bearer_tokens}, CLEAR)):
        with pytest.raises(errors.InvalidRequestError) as caught:
            Server(ServerConfig(listen=listen, **settings))
        assert str(caught.value).startswith(f"{listen} can be reached from other hosts, {told}")
        Server(ServerConfig(listen=listen, insecure=True, **settings)).stop()
    for enough in ({"tokens_file": bearer_tokens}, {"tls_client_ca": files.cert}):
        Server(ServerConfig(listen=listen, **files.as_server, **enough)).stop()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.9.9.9:0", "[::1]:0", "localhost:0"])
def test_this_host_is_let_in(listen: str) -> None:
    Server(ServerConfig(listen=listen)).stop()


def test_a_name_with_an_address_of_another_network_is_no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, 0)) for host in ("127.0.0.1", "192.0.2.1")]
    monkeypatch.setattr("transparent_llm_server.rpc.listener.socket.getaddrinfo", lambda *_, **__: found)
    with pytest.raises(errors.InvalidRequestError, match=r"both\.example:0 can be reached from other hosts"):
        Server(ServerConfig(listen="both.example:0"))


def test_a_server_that_listens_everywhere_with_tokens_over_tls_serves(
    authority: Authority, own: Pair, tmp_path: Path
) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(listen="0.0.0.0:0", tokens_file=file.path, **own.as_server) as server:
        target = f"localhost:{server.address.rpartition(':')[2]}"
        with connect(target, tls_ca=str(authority.path), token=file.bearer_tokens["alice"]) as llm:
            assert llm.model_info().name == "tiny"


def test_a_socket_file_is_its_users_own_unless_callers_say_who_they_are(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    mask = os.umask(0o022)
    os.umask(mask)
    for settings, mode in (({}, 0o600), ({"tokens_file": file.path}, 0o666)):
        with running(listen=f"unix:{tmp_path}/llm.sock", **settings) as server:
            assert stat.S_IMODE(os.stat(f"{tmp_path}/llm.sock").st_mode) == mode
            with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"]) as llm:
                assert llm.model_info().name == "tiny"
    assert os.umask(mask) == mask
