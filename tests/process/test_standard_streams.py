"""Standard input, output and error that are closed, full, gone, or read by nobody: a server serves all the same."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.models.families import save
from support.servers.polling import wait_until
from support.servers.server_processes import TIMEOUT_S, log_of, process, ready_address
from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.errors import TransparentLlmError

SERVE = ("--listen", "127.0.0.1:0", "--device", "cpu")
CLOSE = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
"""Begins a command without any of the three."""

ROWS = [[7] * 60] * 200
"""A run whose line in the log, where prompts are logged, has 36,000 signs."""

MORE_THAN_THERE_IS_ROOM = 40
"""Such lines."""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a server that loads a model when it is asked for."""
    file = tmp_path / "server.toml"
    tables = [
        f'[[models]]\nsource = "{save(family, tmp_path / family)}"\nload = "{load}"\n'
        for family, load in (("gpt2", "pinned"), ("llama_gqa", "on_demand"))
    ]
    file.write_text('listen = "127.0.0.1:0"\n' + "".join(tables))
    return file


def use(address: str) -> None:
    """A model that is there, one that must be loaded, and the health."""
    for model in ("gpt2", "llama_gqa"):
        with connect(address, model=model, timeout_s=TIMEOUT_S) as llm:
            llm.run_tokens([[1, 2, 3]])
            assert llm.residual_out(0).shape[:2] == (1, 3)
            assert llm.is_serving()


def end(running: subprocess.Popen[str]) -> None:
    running.send_signal(signal.SIGTERM)
    assert running.wait(TIMEOUT_S) == 0


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_disk_that_is_full_under_the_log_stops_nothing(config: Path, form: str) -> None:
    with (
        open("/dev/full", "wb") as full,
        process("--config", str(config), "--access-log", form, stderr=full) as running,
    ):
        use(ready_address(running))
        end(running)


def test_a_log_whose_reader_has_gone_stops_nothing(config: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with process("--config", str(config), stderr=writer) as running:
            use(ready_address(running))
            end(running)
    finally:
        os.close(writer)


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_log_that_nobody_reads_stops_nothing_and_says_what_it_lost(config: Path, form: str) -> None:
    with (
        small_pipe() as (reader, writer),
        process("--config", str(config), "--access-log", form, "--log-prompts", stderr=writer) as running,
    ):
        os.close(writer)
        address = ready_address(running)
        make_long_lines(address, MORE_THAN_THERE_IS_ROOM)
        use(address)
        lines: list[str] = []
        reading = threading.Thread(target=lambda: lines.extend(os.fdopen(reader, closefd=False)))
        reading.start()
        make_long_lines(address, 1)  # once there is room again
        end(running)
        reading.join()
    told = [line for line in lines if "lines of this log were lost: nothing read them" in line]
    assert len(told) == 1
    if form == "json":
        assert json.loads(told[0])["level"] == "WARNING"


def test_it_ends_though_nobody_reads_its_log(config: Path) -> None:
    with small_pipe() as (_, writer), process("--config", str(config), "--log-prompts", stderr=writer) as running:
        os.close(writer)
        make_long_lines(ready_address(running), MORE_THAN_THERE_IS_ROOM)
        end(running)


@contextmanager
def small_pipe() -> Iterator[tuple[int, int]]:
    """Which is full before the server is ready; the writing end is closed by whoever gets it."""
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)


def make_long_lines(address: str, count: int) -> None:
    with connect(address, model="gpt2", timeout_s=TIMEOUT_S) as llm:
        for _ in range(count):
            llm.run_tokens(ROWS)


def test_output_that_nobody_can_read_stops_nothing() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        with listening(stdout=writer) as (running, address):
            with connect(address) as llm:
                assert llm.model_info().name == "demo"
            end(running)
    finally:
        os.close(writer)


def test_streams_that_were_closed_are_none_of_its_files() -> None:
    with listening(before=CLOSE) as (running, address):
        for fd in range(3):
            assert os.readlink(f"/proc/{running.pid}/fd/{fd}") == os.devnull
        with connect(address) as llm:
            assert llm.model_info().name == "demo"
        end(running)


def test_nobody_can_answer_a_question_of_a_library() -> None:
    with process(*SERVE, stdin=subprocess.PIPE) as running:
        assert running.stdin is not None
        ready_address(running)
        assert os.readlink(f"/proc/{running.pid}/fd/0") == os.devnull
        running.stdin.close()
        end(running)


@contextmanager
def listening(**options: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server that cannot say where it listens."""
    with tempfile.TemporaryDirectory() as folder:
        address = f"unix:{folder}/llm.sock"
        with process("--listen", address, "--device", "cpu", **options) as running:  # type: ignore[arg-type]
            wait_until(lambda: is_serving(address) or running.poll() is not None, TIMEOUT_S)
            assert running.poll() is None, log_of(running)
            yield running, address


def is_serving(address: str) -> bool:
    try:
        with RemoteTransparentLlm(address, timeout_s=5) as llm:
            return llm.is_serving()
    except TransparentLlmError:
        return False
