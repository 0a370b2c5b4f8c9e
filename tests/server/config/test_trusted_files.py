"""Who may change the files that decide who may call: at the start, at a change, and as Kubernetes has them."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from support.deploy.secret_volume import SecretVolume
from support.servers.certificates import Authority
from support.servers.owners import BearerTokenFile
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.access.bearer_tokens import BearerTokens, new_bearer_token
from transparent_llm_server.app import Server
from transparent_llm_server.config import trusted_files
from transparent_llm_server.config.server import ServerConfig, settings_of

NOBODY = 65534
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """Each file that decides who may call, by its setting."""
    authority = Authority(tmp_path)
    pair = authority.issue("localhost")
    (tmp_path / "revoked").write_text("mallory\n")
    bearer_tokens = BearerTokenFile(tmp_path / "tokens", "alice").path
    access = {"tls_client_ca": authority.path, "tokens_file": bearer_tokens, "revoked_file": tmp_path / "revoked"}
    return {**pair.as_server, **access}


def test_they_are_taken_as_they_are_made(files: dict[str, Path]) -> None:
    Server(ServerConfig(**files))  # type: ignore[arg-type]


@pytest.mark.parametrize("setting", ["tls_cert", "tls_key", "tls_client_ca", "tokens_file", "revoked_file"])
def test_no_server_starts_with_a_file_that_everybody_may_change(setting: str, files: dict[str, Path]) -> None:
    files[setting].chmod(0o602)
    with pytest.raises(InvalidRequestError) as refused:
        Server(ServerConfig(**files))  # type: ignore[arg-type]
    assert str(refused.value) == f"{files[setting]} can be changed by every user of this host: chmod o-w it"


def test_nor_with_settings_that_everybody_may_change(tmp_path: Path) -> None:
    (tmp_path / "server.toml").write_text("insecure = true")
    (tmp_path / "server.toml").chmod(0o646)
    with pytest.raises(InvalidRequestError, match=r"server.toml can be changed by every user of this host"):
        settings_of(tmp_path / "server.toml")
    (tmp_path / "server.toml").chmod(0o644)
    assert settings_of(tmp_path / "server.toml") == {"insecure": True}


def test_a_file_that_everybody_may_change_is_not_read_again(tmp_path: Path) -> None:
    now = [0.0]
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    bearer_tokens = BearerTokens(file.path, lambda: now[0])
    added = file.add("mallory")
    file.path.chmod(0o666)
    now[0] = 1.0
    assert bearer_tokens.owner_of(added) is None
    assert bearer_tokens.owner_of(file.bearer_tokens["alice"]) == "alice"
    file.path.chmod(0o600)
    now[0] = 2.0
    assert bearer_tokens.owner_of(added) == "mallory"


def test_what_is_no_file_holds_nobody_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InvalidRequestError) as refused:
            BearerTokens(path)
        assert str(refused.value) == f"{path} is not a regular file: name one; a link to one will do"
    with pytest.raises(InvalidRequestError, match=f"cannot read {tmp_path}: Is a directory"):
        BearerTokens(tmp_path)


def test_a_file_that_is_too_long_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "tokens").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(InvalidRequestError, match=r"tokens has more than 1048576 bytes: is it the right file"):
        BearerTokens(tmp_path / "tokens")


def warnings(caplog: pytest.LogCaptureFixture, path: Path, *, is_secret: bool = False) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        trusted_files.warn_of(path, is_secret=is_secret)
    return [record.getMessage() for record in caplog.records]


@AS_ROOT
def test_the_log_warns_of_others_who_may_change_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "tokens"
    path.write_text("")
    path.chmod(0o660)
    assert warnings(caplog, path) == []  # of root's group
    os.chown(path, 0, NOBODY)
    (told,) = warnings(caplog, path)
    assert told == f"{path} can be changed by the group {NOBODY}: chmod g-w it, unless its members are all trusted"
    path.chmod(0o640)
    os.chown(path, NOBODY, NOBODY)
    (told,) = warnings(caplog, path)
    assert told == f"{path} belongs to the user {NOBODY}, who can change it: chown it to root or to the server"


def test_the_log_warns_of_a_key_that_everybody_may_read(
    files: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    files["tls_key"].chmod(0o640)
    files["tls_cert"].chmod(0o644)
    with caplog.at_level(logging.WARNING):
        Server(ServerConfig(**files))  # type: ignore[arg-type]
        assert caplog.records == []
        files["tls_key"].chmod(0o644)
        Server(ServerConfig(**files))  # type: ignore[arg-type]
    (record,) = caplog.records
    assert record.getMessage() == f"{files['tls_key']} can be read by every user of this host: chmod o-r it"


def test_a_secret_of_kubernetes_is_taken_and_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Links to files of root's that everybody may read, in a folder that everybody might write to."""
    now, (token, line), (later, later_line) = [0.0], new_bearer_token("alice"), new_bearer_token("alice")
    volume = SecretVolume(tmp_path / "secret", {"tokens.txt": line.encode()})
    volume.folder.chmod(0o1777)
    with caplog.at_level(logging.WARNING):
        bearer_tokens = BearerTokens(volume.folder / "tokens.txt", lambda: now[0])
        assert bearer_tokens.owner_of(token) == "alice"
        volume.put({"tokens.txt": later_line.encode()})
        now[0] = 1.0
        assert [bearer_tokens.owner_of(each) for each in (token, later)] == [None, "alice"]
    assert caplog.records == []
