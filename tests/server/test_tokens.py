"""Who a token lets in: the file, what is wrong with it, and its changes while a server reads it."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.tokens import TokenList, new_token


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
    tokens = TokenList(file)
    assert [tokens.owner_of(token) for token in ("one", "two", "three")] == ["alice", "alice", "bob@example.org"]


@pytest.mark.parametrize("token", ["", "One", "one ", digest("one"), "alice", "\udc80", "文字"])
def test_any_other_token_is_nobodys(token: str, file: Path) -> None:
    assert TokenList(file).owner_of(token) is None


def test_every_entry_is_compared_whichever_is_right(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the time of an answer tells where in the file a token stands."""
    names = ["one", "two", "three"]
    file.write_text("".join(f"owner-{name} {digest(name)}\n" for name in names))
    tokens, compared = TokenList(file), []
    compare = hmac.compare_digest

    def watched(left: bytes, right: bytes) -> bool:
        compared.append(right)
        return compare(left, right)

    monkeypatch.setattr("transparent_llm_server.tokens.hmac.compare_digest", watched)
    for presented in [*names, "none of them"]:
        compared.clear()
        tokens.owner_of(presented)
        assert compared == [bytes.fromhex(digest(name)) for name in names]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("alice", "1 words, where OWNER SHA256HEX belong"),
        (f"alice {digest('x')} more", "3 words, where OWNER SHA256HEX belong"),
        (f"al/ice {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        (f"CN=alice {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        (f"{'a' * 65} {digest('x')}", "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @"),
        ("alice secret-token", "the second word is no SHA-256 in 64 hexadecimal digits"),
        (f"alice {digest('x')[:-1]}", "the second word is no SHA-256 in 64 hexadecimal digits"),
        (f"alice {digest('x')[:-1]}g", "the second word is no SHA-256 in 64 hexadecimal digits"),
        (f"bob {digest('one').upper()}", "this token stands on an earlier line too"),
    ],
)
def test_a_malformed_line_is_named_and_not_quoted(line: str, what: str, file: Path) -> None:
    file.write_text(f"# people\nalice {digest('one')}\n{line}\n")
    with pytest.raises(InvalidRequestError) as refused:
        TokenList(file)
    assert str(refused.value) == (f"{file}, line 3: {what}; `transparent-llm token OWNER` prints a line that is right")
    assert refused.value.metadata == {"file": str(file), "line": "3"}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot read the tokens in .*none.txt: No such file or directory"):
        TokenList(tmp_path / "none.txt")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidRequestError, match=r"cannot read the tokens in .*binary: it is no UTF-8 text"):
        TokenList(tmp_path / "binary")


# Changes


def test_a_changed_file_counts_after_a_second_at_most(file: Path, clock: Clock) -> None:
    tokens = TokenList(file, clock)
    replace(file, f"bob {digest('two')}\n")
    clock.now = 0.5
    assert [tokens.owner_of(token) for token in ("one", "two")] == ["alice", None]
    clock.now = 1.0
    assert [tokens.owner_of(token) for token in ("one", "two")] == [None, "bob"]


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_seen(file: Path, clock: Clock) -> None:
    tokens, before = TokenList(file, clock), os.stat(file)
    replace(file, f"alice {digest('two')}\n")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.now = 1.0
    assert [tokens.owner_of(token) for token in ("one", "two")] == [None, "alice"]


def test_the_last_token_can_be_taken_away(file: Path, clock: Clock) -> None:
    tokens = TokenList(file, clock)
    replace(file, "# nobody\n")
    clock.now = 1.0
    assert tokens.owner_of("one") is None


@pytest.mark.parametrize("text", ["alice secret-token\n", None], ids=["malformed", "missing"])
def test_a_file_that_went_bad_leaves_what_was_good(
    text: str | None, file: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = TokenList(file, clock)
    if text is None:
        file.unlink()
    else:
        replace(file, text)
    with caplog.at_level(logging.DEBUG):
        for clock.now in (1.0, 2.0, 3.0):
            assert tokens.owner_of("one") == "alice"
        assert len(caplog.records) == 1  # told once, not at every call
        assert caplog.records[0].levelno == logging.WARNING
        assert "the tokens read before still count" in caplog.text
        replace(file, f"bob {digest('one')}\n")
        clock.now = 4.0
        assert tokens.owner_of("one") == "bob"
    assert "secret-token" not in caplog.text
    assert digest("one") not in caplog.text


# Making one


def test_a_new_token_is_let_in_by_its_line(tmp_path: Path) -> None:
    token, line = new_token("alice")
    (tmp_path / "tokens").write_text(line)
    assert TokenList(tmp_path / "tokens").owner_of(token) == "alice"
    assert token not in line
    assert len(token) == 43  # 32 random bytes
    assert new_token("alice")[0] != token


@pytest.mark.parametrize("owner", ["", "a b", "CN=alice", "alice\n", "ünä", "a" * 65])
def test_an_owner_that_no_file_can_name_gets_no_token(owner: str) -> None:
    with pytest.raises(InvalidRequestError, match="write 1 to 64 letters, digits, dots, dashes, underscores or @"):
        new_token(owner)


def test_the_command_prints_the_token_on_standard_output_and_its_line_on_standard_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "transparent_llm", "token", "alice"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=tmp_path)
    token = finished.stdout.removesuffix("\n")
    line = finished.stderr.splitlines()[-1]
    assert line == f"alice {digest(token)}"
    assert token not in finished.stderr
    assert list(tmp_path.iterdir()) == []  # nothing is stored
