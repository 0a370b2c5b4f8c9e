"""Open files and threads: raised as far as the system allows it, else the log says the numbers."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.servers.server_processes import TIMEOUT_S, log_of, process, ready_address

CALLS = 160 + 16
FILES = 2 * CALLS + 128
SERVE = ("--listen", "127.0.0.1:0", "--device", "cpu")


@contextmanager
def limited(*limits: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A server under these limits, and its log."""
    with process(*SERVE, before=("prlimit", *limits)) as running:
        ready_address(running)
        yield running, log_of(running)
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0


def test_the_limit_of_open_files_is_raised_as_far_as_it_can_be() -> None:
    with limited("--nofile=256:5000") as (running, log):
        limits = Path(f"/proc/{running.pid}/limits").read_text(encoding="ascii")
        line = next(line for line in limits.splitlines() if line.startswith("Max open files"))
        assert line.split()[3:5] == ["5000", "5000"]
        assert "open files" not in log


@pytest.mark.parametrize(
    ("limit", "what"),
    [
        ("--nofile=300:300", f"300 open files, and could need {FILES} for {CALLS} calls"),
        ("--nproc=210:210", "210 threads"),
    ],
)
def test_a_limit_that_is_too_low_is_told_with_the_numbers(limit: str, what: str) -> None:
    with limited(limit) as (_, log):
        told = [line for line in log.splitlines() if "raise the limit" in line]
        assert len(told) == 1
        assert f"this process may have {what}" in told[0]
        assert "or lower --max-streams" in told[0]


def test_enough_is_enough() -> None:
    with limited("--nofile=4096") as (_, log):
        assert "open files" not in log
