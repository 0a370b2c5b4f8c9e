"""A list of bearer tokens that is emptied, truncated or taken away while a server reads it locks nobody out."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import grpc
import pytest

from attack.victim import OTHER, Victim, standing_by, victim
from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm.wire.methods import SERVICE

pytestmark = pytest.mark.measured


def token_file(attacked: Victim) -> Path:
    """The one that the process was started with."""
    arguments = Path(f"/proc/{attacked.process.pid}/cmdline").read_bytes().split(b"\0")
    return Path(os.fsdecode(arguments[arguments.index(b"--tokens") + 1]))


def replace(file: Path, text: str) -> None:
    new = file.with_suffix(".new")
    new.write_text(text, encoding="ascii")
    os.replace(new, file)


def call(channel: grpc.Channel, token: str) -> grpc.StatusCode:
    asked = channel.unary_unary(f"/{SERVICE}/ServerInfo")
    with suppress(grpc.RpcError):
        _, ended = asked.with_call(b"", metadata=[("authorization", f"Bearer {token}")], timeout=SOON)
        code: grpc.StatusCode = ended.code()
        return code
    return grpc.StatusCode.UNAUTHENTICATED


def test_a_list_that_is_emptied_locks_nobody_out() -> None:
    """A disk that is full when the file is written, or an editor that was ended halfway."""
    with victim() as attacked, standing_by(attacked):
        file, good = token_file(attacked), token_file(attacked).read_text(encoding="ascii")
        with grpc.insecure_channel(attacked.address) as channel:
            for bad in ("", "# who may call\n", "attacker \n", good[: len(good) // 2]):
                told = attacked.log.count("the tokens read before stay in effect")
                replace(file, bad)
                wait_until(
                    lambda told=told: (
                        call(channel, attacked.bearer_tokens[OTHER]) is grpc.StatusCode.OK  # type: ignore[misc]
                        and attacked.log.count("the tokens read before stay in effect") > told
                    )
                )
            file.unlink()
            file.mkdir()
            wait_until(lambda: call(channel, attacked.bearer_tokens[OTHER]) and f"cannot read {file}" in attacked.log)
            assert call(channel, attacked.bearer_tokens[OTHER]) is grpc.StatusCode.OK
            file.rmdir()
