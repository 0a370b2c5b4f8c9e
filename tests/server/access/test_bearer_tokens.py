"""Who a token lets in: the file, what is wrong with it, and its changes while a server reads it."""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from transparent_llm.errors import AuthError, InvalidRequestError
from transparent_llm_server.access.bearer_tokens import BearerTokens, new_bearer_token

NO_TIME = "the third word is not a time like expires=2027-01-31T00:00:00Z"
NO_TIMES = [
    "more",
    "2027-01-31T00:00:00Z",
    "expires=",
    "expires=2027-01-31",
    "expires=2027-01-31T00:00:00",
    "expires=2027-01-31T00:00:00+01:00",
    "expires=2027-02-31T00:00:00Z",
    "expires=2027-01-31T24:00:00Z",
    "expires=٢027-01-31T00:00:00Z",
    "EXPIRES=2027-01-31T00:00:00Z",
    "expires=2027-01-31t00:00:00z",
]


def digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


class Clock:
    """Time that a test lets pass."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokens.txt"
    path.write_text(f"alice {digest('one')}\n")
    return path


@pytest.fixture
def clock() -> Clock:
    return Clock()


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text)
    os.replace(new, file)


# What a file says


def test_a_token_has_the_owner_of_its_line(file: Path) -> None:
    file.write_text(
        f"# people\n\nalice {digest('one')}\n\talice\t{digest('two').upper()}   # her laptop\r\n"
        f"bob@example.org {digest('three')}"
    )
    bearer_tokens = BearerTokens(file)
    assert [bearer_tokens.owner_of(token) for token in ("one", "two", "three")] == ["alice", "alice", "bob@example.org"]


@pytest.mark.parametrize("token", ["", "One", "one ", digest("one"), "alice", "\udc80", "文字"])
def test_any_other_token_is_nobodys(token: str, file: Path) -> None:
    assert BearerTokens(file).owner_of(token) is None


def test_one_of_10_000_tokens_is_looked_up(file: Path) -> None:
    """However many there are, a call that brings a wrong one costs no more: none is compared one by one."""
    file.write_text("".join(f"owner-{number} {number:064x}\n" for number in range(10_000)) + f"alice {digest('one')}\n")
    bearer_tokens, compared = BearerTokens(file), []

    class Watched(dict[bytes, Any]):
        def __iter__(self) -> Any:
            compared.append("all of them")
            return super().__iter__()

    bearer_tokens._file._contents = Watched(bearer_tokens._file._contents)
    assert bearer_tokens.owner_of("one") == "alice"
    assert bearer_tokens.owner_of("two") is None
    assert compared == []


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("alice", "1 words, not OWNER SHA256HEX and perhaps expires=TIME"),
        (
            f"alice {digest('x')} expires=2027-01-31T00:00:00Z more",
            "4 words, not OWNER SHA256HEX and perhaps expires=TIME",
        ),
        *((f"alice {digest('x')} {word}", NO_TIME) for word in NO_TIMES),
        (f"al/ice {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        (f"CN=alice {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        (f"{'a' * 65} {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        ("alice secret-token", "the second word is not a SHA-256 in 64 hexadecimal digits"),
        (f"alice {digest('x')[:-1]}", "the second word is not a SHA-256 in 64 hexadecimal digits"),
        (f"alice {digest('x')[:-1]}g", "the second word is not a SHA-256 in 64 hexadecimal digits"),
        (f"bob {digest('one').upper()}", "this token is on an earlier line too"),
    ],
)
def test_a_malformed_line_is_named_and_not_quoted(line: str, what: str, file: Path) -> None:
    file.write_text(f"# people\nalice {digest('one')}\n{line}\n")
    with pytest.raises(InvalidRequestError) as refused:
        BearerTokens(file)
    assert str(refused.value) == (f"{file}, line 3: {what}; `transparent-llm token OWNER` prints a valid line")
    assert refused.value.metadata == {"file": str(file), "line": "3"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot read .*none.txt: No such file or directory"):
        BearerTokens(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match=r"cannot read the tokens in .*binary: it is not UTF-8 text"):
        BearerTokens(tmp_path / "binary")


@pytest.mark.parametrize("text", ["", "\n", "# people\n"])
def test_a_file_without_tokens_lets_no_server_start(text: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(InvalidRequestError) as refused:
        BearerTokens(file)
    assert str(refused.value) == (
        f"{file} has no tokens, so nobody could call; `transparent-llm token OWNER` prints a line for it"
    )


# Tokens that expire

ENDS = datetime(2027, 1, 31, tzinfo=timezone.utc)


class Calendar:
    """What day it is for a server."""

    def __init__(self, now: datetime) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
def calendar() -> Calendar:
    return Calendar(ENDS - timedelta(days=30))


@pytest.fixture
def ending(file: Path, calendar: Calendar) -> BearerTokens:
    """A token of alice that ends, and one of bob that does not."""
    file.write_text(f"alice {digest('one')} expires=2027-01-31T00:00:00Z  # her laptop\nbob {digest('two')}\n")
    return BearerTokens(file, now=calendar)


def test_a_token_lets_in_until_it_expires(ending: BearerTokens, calendar: Calendar) -> None:
    calendar.now = ENDS - timedelta(seconds=1)
    assert ending.owner_of("one") == "alice"
    calendar.now = ENDS
    with pytest.raises(AuthError) as refused:
        ending.owner_of("one")
    assert str(refused.value) == "this token expired on 2027-01-31T00:00:00Z; ask the server's operator for a new one"
    assert refused.value.metadata == {"problem": "expired"}
    assert ending.owner_of("two") == "bob"


def test_that_it_has_expired_is_told_to_its_holder_only(ending: BearerTokens, calendar: Calendar) -> None:
    calendar.now = ENDS + timedelta(days=1)
    assert [ending.owner_of(token) for token in ("alice", digest("one"), "On", "")] == [None] * 4


def test_the_log_warns_a_week_before_and_once_a_day(
    ending: BearerTokens, calendar: Calendar, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        ending.owner_of("two")
        assert caplog.records == []
        for days in (7, 6, -1):
            caplog.clear()
            calendar.now = ENDS - timedelta(days=days)
            for _ in range(3):
                ending.owner_of("two")
            (record,) = caplog.records
            assert record.levelno == logging.WARNING
            assert record.getMessage() == (
                "1 tokens have expired or will within 7 days: alice on 2027-01-31T00:00:00Z; `transparent-llm token "
                "OWNER --days N` makes another"
            )


def test_the_log_warns_at_the_start_and_names_few(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    lines = [f"owner-{number} {number:064x} expires=2027-01-{number + 1:02d}T00:00:00Z\n" for number in range(12)]
    file.write_text("".join(lines))
    with caplog.at_level(logging.WARNING):
        BearerTokens(file, now=Calendar(ENDS))
    assert "12 tokens have expired or will within 7 days: owner-0 on 2027-01-01T00:00:00Z, owner-1 on" in caplog.text
    assert "owner-9 on 2027-01-10T00:00:00Z and 2 more;" in caplog.text


def test_a_new_token_for_some_days(tmp_path: Path) -> None:
    token, line = new_bearer_token("alice", days=30)
    (tmp_path / "tokens").write_text(line)
    now = datetime.now(timezone.utc)
    assert BearerTokens(tmp_path / "tokens").owner_of(token) == "alice"
    assert BearerTokens(tmp_path / "tokens", now=Calendar(now + timedelta(days=29))).owner_of(token) == "alice"
    with pytest.raises(AuthError, match="this token expired on"):
        BearerTokens(tmp_path / "tokens", now=Calendar(now + timedelta(days=30))).owner_of(token)


@pytest.mark.parametrize("days", [0, -1, 36_501, 10**12])
def test_there_is_no_token_for_such_days(days: int) -> None:
    with pytest.raises(InvalidRequestError, match=f"a token for {days} days: write 1 to 36500"):
        new_bearer_token("alice", days)


# Changes


def test_a_changed_file_counts_after_a_second_at_most(file: Path, clock: Clock) -> None:
    bearer_tokens = BearerTokens(file, clock)
    replace(file, f"bob {digest('two')}\n")
    clock.now = 0.5
    assert [bearer_tokens.owner_of(token) for token in ("one", "two")] == ["alice", None]
    clock.now = 1.0
    assert [bearer_tokens.owner_of(token) for token in ("one", "two")] == [None, "bob"]


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_seen(file: Path, clock: Clock) -> None:
    bearer_tokens, before = BearerTokens(file, clock), os.stat(file)
    replace(file, f"alice {digest('two')}\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now = 1.0
    assert [bearer_tokens.owner_of(token) for token in ("one", "two")] == [None, "alice"]


@pytest.mark.parametrize(
    "text", ["alice secret-token\n", None, "", "# nobody\n\n"], ids=["malformed", "missing", "empty", "comments"]
)
def test_a_file_that_went_bad_leaves_what_was_good(
    text: str | None, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    bearer_tokens = BearerTokens(file, clock)
    if text is None:
        file.unlink()
    else:
        replace(file, text)
    with caplog.at_level(logging.DEBUG):
        for clock.now in (1.0, 2.0, 3.0):
            assert bearer_tokens.owner_of("one") == "alice"
        assert len(caplog.records) == 1  # told once, not at every call
        assert caplog.records[0].levelno == logging.WARNING
        assert "the tokens read before stay in effect" in caplog.text
        replace(file, f"bob {digest('one')}\n")
        clock.now = 4.0
        assert bearer_tokens.owner_of("one") == "bob"
    assert "secret-token" not in caplog.text
    assert digest("one") not in caplog.text


# Making one


def test_a_new_token_is_let_in_by_its_line(tmp_path: Path) -> None:
    token, line = new_bearer_token("alice")
    (tmp_path / "tokens").write_text(line)
    assert BearerTokens(tmp_path / "tokens").owner_of(token) == "alice"
    assert token not in line
    assert len(token) == 43  # 32 random bytes
    assert new_bearer_token("alice")[0] != token


@pytest.mark.parametrize("owner", ["", "a b", "CN=alice", "alice\n", "ünä", "a" * 65])
def test_an_owner_that_no_file_can_name_gets_no_token(owner: str) -> None:
    with pytest.raises(InvalidRequestError, match="write 1 to 64 letters, digits, dots, dashes, underscores or @"):
        new_bearer_token(owner)


def test_the_command_prints_the_token_on_standard_output_and_its_line_on_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transparent_llm", "token", "alice"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    token = finished.stdout.removesuffix("\n")
    assert finished.stderr == f"alice {digest(token)}\n"  # `2>> tokens.txt` is all it takes
    assert token not in finished.stderr
    assert list(tmp_path.iterdir()) == []  # nothing is stored


def test_the_command_makes_tokens_for_some_days() -> None:
    command = [sys.executable, "-m", "transparent_llm", "token", "alice", "--days", "30"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (line,) = finished.stderr.splitlines()
    assert line.startswith(f"alice {digest(finished.stdout.strip())} expires=20")
