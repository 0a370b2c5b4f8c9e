"""Certificates and owners that are let in no more: what the file says, its changes, and calls over real connections."""

from __future__ import annotations

import hashlib
import logging
import os
import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from support.servers.certificates import Authority, Pair
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.errors import AuthError, InvalidRequestError
from transparent_llm_server.access.revoked import RevokedList
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

REVOKED = "the client certificate was revoked; ask the server's operator for another"
LET_IN_NO_MORE = "this server no longer admits this owner; ask its operator"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def alice(authority: Authority) -> Pair:
    return authority.issue("a.example", common_name="alice")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "revoked"
    path.write_text("# nobody yet\n")
    return path


def pem_of(pair: Pair) -> bytes:
    return pair.cert.read_bytes()


def fingerprint(pair: Pair) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem_of(pair).decode())).hexdigest()


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


# What the file says


def pairs(text: str) -> str:
    """As openssl writes numbers: in capitals, with colons."""
    return ":".join(text[start : start + 2] for start in range(0, len(text), 2)).upper()


@pytest.mark.parametrize("line", ["sha256:{0}", "sha256:{1}", "serial:{2:x}", "serial:{2:040X}", "  serial:{2:X}  "])
def test_a_certificate_is_revoked_by_fingerprint_or_number(
    line: str, file: Path, alice: Pair, authority: Authority
) -> None:
    other = authority.issue("a.example", common_name="alice")
    file.write_text(line.format(fingerprint(alice), pairs(fingerprint(alice)), alice.serial) + "\n")
    revoked = RevokedList(file)
    with pytest.raises(AuthError) as refused:
        revoked.require_certificate(pem_of(alice))
    assert (str(refused.value), refused.value.metadata) == (REVOKED, {"problem": "revoked"})
    revoked.require_certificate(pem_of(other))
    revoked.require_owner("CN=alice")


@pytest.mark.parametrize("number", [1, 0x7F, 0x80, 2**63, 2**158 + 1])
def test_numbers_of_all_lengths_are_found(number: int, file: Path, authority: Authority, tmp_path: Path) -> None:
    pem = authority.issue_with_number(number)
    file.write_text(f"serial:{number:x}\n")
    with pytest.raises(AuthError):
        RevokedList(file).require_certificate(pem)
    file.write_text(f"serial:{number + 1:x}\n")
    RevokedList(file).require_certificate(pem)
    assert x509.load_pem_x509_certificate(pem).serial_number == number


@pytest.mark.parametrize("owner", ["alice", "a@example.org", "CN=Alice Smith", "SAN=a.example", "CN=#1 of: all"])
def test_an_owner_is_revoked_by_name(owner: str, file: Path) -> None:
    file.write_text(f"# gone\n\n{owner}  # since May\n")
    with pytest.raises(AuthError) as refused:
        RevokedList(file).require_owner(owner)
    assert (str(refused.value), refused.value.metadata) == (LET_IN_NO_MORE, {"problem": "revoked"})
    RevokedList(file).require_owner(f"{owner}2")


@pytest.mark.parametrize(
    "line",
    [
        "sha256:",
        "sha256:00",
        "sha256:" + "g" * 64,
        "serial:",
        "serial:xyz",
        "serial:" + "0" * 41,
        "a b",
        "alice#gone",
    ],
)
def test_a_line_that_says_nothing_is_named(line: str, file: Path) -> None:
    file.write_text(f"alice\n{line}\n")
    with pytest.raises(InvalidRequestError) as refused:
        RevokedList(file)
    wanted = "write sha256:FINGERPRINT, serial:NUMBER, or an owner's name as it is in the log"
    assert str(refused.value) == f"{file}, line 2: {wanted}"


def test_a_file_that_went_bad_leaves_who_was_revoked(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    now = [0.0]
    replace(file, "mallory\n")
    revoked = RevokedList(file, lambda: now[0])
    for at, text in enumerate(["mal lory\n", None], start=1):
        file.unlink() if text is None else replace(file, text)
        now[0] = float(at)
        with caplog.at_level(logging.WARNING), pytest.raises(AuthError):
            revoked.require_owner("mallory")
        assert "the revocations read before stay in effect" in caplog.text
        caplog.clear()
    replace(file, "# pardoned\n")
    now[0] = 3.0
    revoked.require_owner("mallory")


def test_nobody_can_be_revoked_where_nobody_is_known(file: Path) -> None:
    with pytest.raises(InvalidRequestError, match="require tokens or client certificates"):
        Server(ServerConfig(revoked_file=file))


# Calls


@pytest.fixture
def mutual(authority: Authority, file: Path) -> dict[str, Any]:
    return {**authority.issue("localhost").as_server, "tls_client_ca": authority.path, "revoked_file": file}


def is_let_in(llm: RemoteTransparentLlm) -> bool:
    try:
        llm.model_info()
    except errors.AuthError as error:
        return str(error) not in (REVOKED, LET_IN_NO_MORE)
    return True


@pytest.mark.parametrize("line", ["sha256:{0}", "serial:{1:x}", "CN=alice"])
def test_who_is_revoked_is_let_in_no_more_over_an_open_connection(
    line: str, mutual: dict[str, Any], file: Path, authority: Authority, alice: Pair
) -> None:
    bob, ca = authority.issue("b.example", common_name="bob"), str(authority.path)
    with (
        running(**mutual) as server,
        RemoteTransparentLlm(server.address, tls_ca=ca, **alice.as_client) as first,
        RemoteTransparentLlm(server.address, tls_ca=ca, **bob.as_client) as second,
    ):
        assert is_let_in(first)
        replace(file, line.format(fingerprint(alice), alice.serial) + "\n")
        wait_until(lambda: not is_let_in(first))
        assert is_let_in(second)
        replace(file, "")
        wait_until(lambda: is_let_in(first))


def test_a_token_does_not_make_a_revoked_certificate_good(
    mutual: dict[str, Any], file: Path, authority: Authority, alice: Pair, tmp_path: Path
) -> None:
    bearer_tokens = BearerTokenFile(tmp_path / "tokens", "alice")
    replace(file, f"sha256:{fingerprint(alice)}\n")
    options: dict[str, Any] = {"tls_ca": str(authority.path), "token": bearer_tokens.bearer_tokens["alice"]}
    with running(**mutual, tokens_file=bearer_tokens.path) as server:
        with RemoteTransparentLlm(server.address, **options, **alice.as_client) as llm:
            assert not is_let_in(llm)
        with RemoteTransparentLlm(server.address, **options, **authority.issue("c.example").as_client) as llm:
            assert is_let_in(llm)


def test_all_tokens_of_an_owner_end_by_one_line(file: Path, tmp_path: Path) -> None:
    bearer_tokens = BearerTokenFile(tmp_path / "tokens", "alice", "bob")
    second = bearer_tokens.add("alice")
    with (
        running(tokens_file=bearer_tokens.path, revoked_file=file) as server,
        RemoteTransparentLlm(server.address, token=bearer_tokens.bearer_tokens["alice"]) as one,
        RemoteTransparentLlm(server.address, token=second) as two,
        RemoteTransparentLlm(server.address, token=bearer_tokens.bearer_tokens["bob"]) as bob,
    ):
        assert all(is_let_in(llm) for llm in (one, two, bob))
        replace(file, "alice\n")
        wait_until(lambda: not is_let_in(one))
        assert not is_let_in(two)
        assert is_let_in(bob)
