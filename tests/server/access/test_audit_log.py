"""The audit log: what is in it and what never is, and a disk that is full, gone or slow."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.servers.certificates import Authority, shown_serial
from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.access.audit_log import AuditLog
from transparent_llm_server.events import OTHER, Call

SENTENCE = "zanzibar quokka"
Line = dict[str, Any]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@contextmanager
def started(path: Path, clock: Callable[[], float] = lambda: 0.0) -> Iterator[AuditLog]:
    """One that has written all when the block ends."""
    log = AuditLog(path, clock)
    log.start()
    yield log
    log.stop()


def lines(path: Path) -> list[Line]:
    return [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]


def events(path: Path) -> list[str]:
    return [line["event"] for line in lines(path)]


def facts(line: Line) -> Line:
    """Without the time."""
    return {name: value for name, value in line.items() if name != "time"}


# What a server writes


def test_who_did_what_and_who_was_refused(path: Path, tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(tokens_file=file.path, audit_log=path) as server:
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"]) as llm:
            llm.run([SENTENCE])
            llm.residual_out(0)
            with pytest.raises(errors.IndexOutOfRangeError):
                llm.residual_out(99)
        for token in (None, "wrong"):
            with RemoteTransparentLlm(server.address, token=token) as llm, pytest.raises(errors.AuthError):
                llm.model_info()
        with grpc.insecure_channel(server.address) as channel:
            health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON)
        wait_until(lambda: events(path).count("refused") == 2)
        address = server.address
    start, *between, stop = lines(path)
    assert facts(start) == {"event": "start", "address": address, "authentication": True}
    assert facts(stop) == {"event": "stop"}
    calls = [line for line in between if line["event"] == "call"]
    assert {(line["method"], line["code"], line["owner"]) for line in calls} >= {
        ("Run", "OK", "alice"),
        ("ResidualOut", "OK", "alice"),
        ("ResidualOut", "OUT_OF_RANGE", "alice"),
    }
    assert all(line["address"].startswith("ipv") and line["milliseconds"] >= 0 for line in calls)
    assert next(line for line in calls if line["method"] == "ResidualOut")["sent_bytes"] > 0
    missing, unknown = (line for line in between if line["event"] == "refused")
    for line, problem in ((missing, "missing"), (unknown, "unknown")):
        told = {name: line[name] for name in ("method", "code", "reason", "problem")}
        assert told == {
            "method": "ModelInfo",
            "code": "UNAUTHENTICATED",
            "reason": "UNAUTHENTICATED",
            "problem": problem,
        }
        assert "owner" not in line
    assert not any(line.get("method") == "Check" for line in between)


def test_neither_prompts_nor_tokens_are_in_it(path: Path, tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    token = file.bearer_tokens["alice"]
    with running(tokens_file=file.path, audit_log=path) as server:
        with RemoteTransparentLlm(server.address, token=token) as llm:
            llm.run([SENTENCE])
            llm.logits()
            run_id = llm.run_id()
        with RemoteTransparentLlm(server.address, token=f"{token}-wrong") as llm, pytest.raises(errors.AuthError):
            llm.run([SENTENCE])
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/made.up.{SENTENCE.replace(' ', '')}/Zanzibar")(b"", timeout=SOON)
        wait_until(lambda: len(events(path)) >= 4)
    text = path.read_text()
    for secret in (*SENTENCE.split(), "Zanzibar", token, hashlib.sha256(token.encode()).hexdigest(), run_id):
        assert secret not in text


def test_files_that_are_read_again(path: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair, renewed = authority.issue("localhost"), authority.issue("localhost")
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(**pair.as_server, tokens_file=file.path, audit_log=path) as server:
        options = {"tls_ca": str(authority.path), "token": file.bearer_tokens["alice"]}
        with RemoteTransparentLlm(server.address, **options) as llm:  # type: ignore[arg-type]
            file.add("alice")
            wait_until(lambda: llm.model_info() and "read again" in events(path))
            file.path.write_text("")
            wait_until(lambda: llm.model_info() and "not read" in events(path))
        pair.key.write_bytes(renewed.key.read_bytes())
        pair.cert.write_bytes(renewed.cert.read_bytes())
        host, _, port = server.address.rpartition(":")
        assert shown_serial((host, int(port))) == renewed.serial
    told = [facts(line) for line in lines(path) if line["event"] in ("read again", "not read")]
    why = f"{file.path} has no tokens, so nobody could call; `transparent-llm token OWNER` prints a line for it"
    assert told == [
        {"event": "read again", "file": str(file.path), "entries": 2},
        {"event": "not read", "file": str(file.path), "why": why},
        {"event": "read again", "file": str(pair.cert)},
    ]


# The file


def test_the_file_is_for_its_owner_alone_and_is_appended_to(path: Path) -> None:
    for number in range(2):
        with started(path) as log:
            log.tell("told", number=number)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert events(path) == ["start", "told", "stop"] * 2


def test_a_name_writes_no_line_of_its_own(path: Path) -> None:
    with started(path) as log:
        log.ended(Call(SERVICE, "Run", code="OK", owner='CN=eve\n{"event": "call"}\x1b[2J\u2028'))
    assert len(path.read_text().splitlines()) == 3
    assert path.read_text().isascii()
    assert "\x1b" not in path.read_text()


def test_a_file_that_was_moved_away_is_made_anew(path: Path) -> None:
    """As logrotate does it, and whoever deletes it."""
    with started(path) as log:
        log.tell("first")
        wait_until(lambda: "first" in events(path))
        path.rename(path.with_suffix(".1"))
        log.tell("second")
        wait_until(lambda: path.exists() and "second" in events(path))
        path.unlink()
        log.tell("third")
        wait_until(lambda: path.exists() and "third" in events(path))
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert events(path.with_suffix(".1")) == ["start", "first"]
    assert events(path) == ["third", "stop"]


def test_what_is_no_file_of_its_own_is_refused(path: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    path.touch()
    path.chmod(0o602)
    for refused in (path, Path("/dev/full")):
        with pytest.raises(InvalidRequestError, match="must be a regular file that not everyone may write"):
            AuditLog(refused)
    for refused, why in (
        (tmp_path / "pipe", "No such device"),
        (tmp_path / "no" / "log", "No such file"),
        (tmp_path, ""),
    ):
        with pytest.raises(InvalidRequestError, match=f"cannot write the audit log {refused}: {why}"):
            AuditLog(refused)


# What goes wrong

FULL = """
import resource, sys
from pathlib import Path
from transparent_llm_server.access.audit_log import AuditLog

path = Path(sys.argv[1])
log = AuditLog(path)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))  # from here on the disk is as good as full
log.start()
for number in range(50):
    log.tell("told", number=number)
while log._lines.qsize():
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.stop()
"""


def test_a_full_disk_loses_lines_and_counts_them(path: Path) -> None:
    finished = subprocess.run([sys.executable, "-c", FULL, str(path)], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.count("cannot write the audit log") == 1
    whole, torn = [], []
    for line in path.read_text().splitlines():
        try:
            whole.append(json.loads(line))
        except ValueError:
            torn.append(line)
    written = [line for line in whole if line["event"] == "told"]
    assert len(torn) <= 1
    assert 0 < len(written) < 50
    (lost,) = (line for line in whole if line["event"] == "lost")
    assert 50 - len(written) <= lost["lines"] + len(torn) <= 51
    assert whole[-1]["event"] == "stop"


def test_a_folder_that_is_away_loses_lines_and_counts_them(tmp_path: Path) -> None:
    path = tmp_path / "mounted" / "audit.jsonl"
    path.parent.mkdir()
    with started(path) as log:
        wait_until(lambda: path.stat().st_size)
        path.parent.rename(tmp_path / "away")
        for _ in range(3):
            log.tell("told")
        wait_until(lambda: log._file is not None and log._file.lost == 3)
        (tmp_path / "mounted").mkdir()
        log.tell("again")
        wait_until(path.exists)
    assert [facts(line) for line in lines(path)] == [
        {"event": "lost", "lines": 3},
        {"event": "again"},
        {"event": "stop"},
    ]


def test_a_disk_that_does_not_answer_holds_nobody_up(path: Path) -> None:
    """Nothing is written before it starts: so it is with a writer that waits for its disk."""
    log = AuditLog(path)
    for number in range(10_123):
        log.tell("told", number=number)
    log._lines.get_nowait()  # the disk takes one, which makes room for the first line of `start`
    log.start()
    wait_until(lambda: "lost" in path.read_text())
    log.stop()
    assert facts(lines(path)[0]) == {"event": "lost", "lines": 123}
    assert len(lines(path)) == 1 + 9_999 + 2


def test_strangers_cannot_fill_the_disk(path: Path) -> None:
    now = [100.0]
    with started(path, lambda: now[0]) as log:
        for _ in range(5000):
            log.ended(Call(SERVICE, "Run", code="UNAUTHENTICATED", problem="unknown"))
            log.ended(Call(OTHER, OTHER, code="UNIMPLEMENTED"))
        log.ended(Call(SERVICE, "Run", code="OK", owner="alice"))
        now[0] = 101.0
        log.ended(Call(SERVICE, "Logits", code="OK", owner="alice"))
    by_strangers = [line for line in lines(path) if line.get("problem") or line.get("method") == OTHER]
    assert len(by_strangers) == 20
    assert [line["calls"] for line in lines(path) if "calls" in line] == [9980]
    assert [line["method"] for line in lines(path) if line.get("owner") == "alice"] == ["Run", "Logits"]


def test_without_a_path_nothing_is_written(tmp_path: Path) -> None:
    log = AuditLog(None)
    log.start()
    log.ended(Call(SERVICE, "Run", code="OK"))
    log.tell("told")
    log.stop()
    assert list(tmp_path.iterdir()) == []
