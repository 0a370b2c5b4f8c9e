"""The administrators' service: their token alone opens it, and it tells what is there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.servers.engines import SOON, held
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, cli, errors
from transparent_llm.client.administrator import Administrator
from transparent_llm.demo import server_process
from transparent_llm_server.app import Server

ROWS = [[1, 2, 3], [4, 5]]


@dataclass(frozen=True)
class Place:
    """A server with owners and an administrator."""

    server: Server
    users: BearerTokenFile
    administrators: BearerTokenFile

    def user(self, owner: str, **options: object) -> RemoteTransparentLlm:
        token = self.users.bearer_tokens[owner]
        return RemoteTransparentLlm(self.server.address, token=token, cache_bytes=0, **options)

    def administrator(self) -> Administrator:
        return Administrator(self.server.address, token=self.administrators.bearer_tokens["ops"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("administration")
    users = BearerTokenFile(folder / "users", "alice", "bob")
    administrators = BearerTokenFile(folder / "administrators", "ops")
    settings = {"tokens_file": users.path, "admin_tokens_file": administrators.path, "max_streams": 2}
    with running(owner_positions_per_minute=1000, **settings) as server:
        yield Place(server, users, administrators)


def test_runs_are_listed_with_owner_size_and_age(place: Place) -> None:
    with place.user("alice") as alice, place.user("bob") as bob, place.administrator() as administrator:
        alice.run_tokens(ROWS)
        nbytes = alice.server_info().stored_run_bytes
        bob.run_tokens([[7, 8]])
        bob.run_tokens([[8, 7]])
        alice.residual_in(0)
        found, of_bob = administrator.runs(), administrator.runs("bob", limit=1)
    assert [run.owner for run in found.runs] == ["alice", "bob", "bob"]
    assert {run.model for run in found.runs} == {"tiny"}
    assert found.runs[0].nbytes == nbytes
    assert (found.total, found.total_bytes) == (3, sum(run.nbytes for run in found.runs))
    assert all(0 <= run.idle_s <= run.age_s < 600 for run in found.runs)
    assert len({run.run_id for run in found.runs}) == 3
    assert (len(of_bob.runs), of_bob.total) == (1, 2)
    assert of_bob.runs[0] in [run for run in of_bob.runs if run.owner == "bob"]


def test_owners_are_listed_with_what_waits_and_what_they_took(place: Place) -> None:
    with place.user("alice") as alice, place.administrator() as administrator:
        before = {owner.owner: owner for owner in administrator.owners()}
        alice.run_tokens([[11, 12, 13, 14]])
        nbytes = alice.residual_in(0).nbytes
        with ThreadPoolExecutor(1) as threads, held(place.server._engine):
            waiting = threads.submit(alice.copy().run_tokens, [[15, 16]])
            wait_until(lambda: place.server._engine.queued_runs == 1)
            (during,) = (owner for owner in administrator.owners() if owner.owner == "alice")
        waiting.result(SOON)
    used, allowed = during.usage["positions_per_minute"]
    was = {quota: taken[0] for quota, taken in before["alice"].usage.items()} if "alice" in before else {}
    assert (used - was.get("positions_per_minute", 0), allowed) == (4 + 2, 1000)
    assert during.waiting_runs == 1
    assert during.stored_runs >= 1
    assert during.stored_run_bytes > 0
    assert during.usage["bytes_per_hour"] == (was.get("bytes_per_hour", 0) + nbytes, None)


@pytest.mark.parametrize(
    ("token", "words"),
    [
        ("", "administrators need a token of their own: pass --token or set TRANSPARENT_LLM_ADMIN_TOKEN"),
        ("wrong", "this is no token of an administrator of this server"),
        ("alice", "this is no token of an administrator of this server"),
    ],
)
def test_nobody_elses_token_opens_it(place: Place, token: str, words: str) -> None:
    with Administrator(place.server.address, token=place.users.bearer_tokens.get(token, token)) as stranger:
        for ask in (stranger.runs, stranger.owners, stranger.drain):
            with pytest.raises(errors.AuthError) as refused:
                ask()
            assert words in refused.value.message
    assert not place.server._to_end.is_set()


def test_it_opens_nothing_else(place: Place) -> None:
    token = place.administrators.bearer_tokens["ops"]
    with RemoteTransparentLlm(place.server.address, token=token) as llm, pytest.raises(errors.AuthError):
        llm.model_info()


def test_a_full_server_answers_its_administrators(place: Place) -> None:
    with place.user("alice") as alice, place.administrator() as administrator, ThreadPoolExecutor(2) as threads:
        with held(place.server._engine):
            waiting = [threads.submit(alice.copy().run_tokens, [[20, i]]) for i in range(2)]
            wait_until(lambda: place.server._engine.queued_runs == 2)
            with place.user("alice", timeout_s=0.9) as impatient, pytest.raises(errors.BusyError):
                impatient.server_info()
            assert [owner.waiting_runs for owner in administrator.owners() if owner.owner == "alice"] == [2]
        for each in waiting:
            each.result(SOON)


def test_a_revoked_administrator_is_let_in_no_more(tmp_path: Path) -> None:
    administrators, revoked = BearerTokenFile(tmp_path / "administrators", "ops"), tmp_path / "revoked"
    revoked.write_text("ADMIN=ops\n", encoding="utf-8")
    users = BearerTokenFile(tmp_path / "users", "alice")
    files = {"tokens_file": users.path, "admin_tokens_file": administrators.path, "revoked_file": revoked}
    token = administrators.bearer_tokens["ops"]
    with running(**files) as server, Administrator(server.address, token=token) as administrator:
        with pytest.raises(errors.AuthError) as refused:
            administrator.owners()
    assert refused.value.metadata["problem"] == "revoked"


def test_without_a_file_of_administrators_there_is_no_such_service() -> None:
    with running() as server, Administrator(server.address, token="any") as administrator:
        with pytest.raises(errors.AuthError, match="this is no token of an administrator"):
            administrator.owners()


def test_the_command_lists_and_drains(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    administrators = BearerTokenFile(tmp_path / "administrators", "ops")
    monkeypatch.setenv("TRANSPARENT_LLM_ADMIN_TOKEN", administrators.bearer_tokens["ops"])
    with server_process("--admin-tokens", str(administrators.path), "--drain-s", "5") as address:
        with RemoteTransparentLlm(address) as llm:
            llm.run_tokens(ROWS)
        assert cli.main(["admin", "runs", "--target", address]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        assert rows[0] == ["run", "owner", "model", "bytes", "age", "unread for"]
        assert rows[1][1:3] == ["-", "demo"]
        assert rows[2] == [f"1 runs, {rows[1][3]} bytes"]
        assert cli.main(["admin", "owners", "--target", address]) == 0
        rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
        head = ["owner", "waiting", "runs", "run bytes", "positions/minute", "positions/hour", "bytes/minute"]
        assert rows[0] == [*head, "bytes/hour"]
        assert rows[1][:3] == ["-", "0", "1"]
        assert rows[1][4:] == ["6", "6", "0", "0"]
        assert cli.main(["admin", "drain", "--target", address]) == 0
        assert "the server drains" in capsys.readouterr().out
        wait_until(lambda: not serves(address), SOON)


def serves(address: str) -> bool:
    command = [sys.executable, "-m", "transparent_llm", "health", "--target", address]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
