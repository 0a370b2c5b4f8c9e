"""What a server process makes of signals, whatever it is at when they come."""

from __future__ import annotations

import ctypes
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.server_processes import TIMEOUT_S, log_of, process, ready_address
from transparent_llm import connect
from transparent_llm.errors import AuthError

SCRIPT = Path(__file__).with_name("busy_server.py")
ON_A_TERMINAL = """
import fcntl, os, sys, termios
os.setsid()
fcntl.ioctl(os.open(sys.argv[1], os.O_RDWR), termios.TIOCSCTTY, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"""
"""As the leader of a session of its own, whose terminal is the first argument, becomes the others."""

SERVE = ("--listen", "127.0.0.1:0", "--device", "cpu")


@contextmanager
def at(what: str) -> Iterator[subprocess.Popen[str]]:
    """A server that is at something."""
    with process(what, script=SCRIPT) as running:
        wait_until(lambda: "at it" in log_of(running), TIMEOUT_S)
        yield running


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_it_still_loads(number: signal.Signals) -> None:
    with at("loads_for_ever") as running:
        running.send_signal(number)
        assert running.wait(TIMEOUT_S) == 0
        assert f"{number.name}: draining" in log_of(running)


def test_it_ends_in_the_midst_of_work_that_does_not_stop_and_says_so() -> None:
    with at("computes_for_ever") as running:
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0
        assert "abandoned, as it did not end in time: the model, for " in log_of(running)
        assert log_of(running).endswith("stopped\n")


def test_it_waits_for_no_thread_of_a_library() -> None:
    with at("leaves_threads") as running:
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0
        assert "given up" not in log_of(running)


def test_what_holds_up_the_end_itself_is_stopped_with_a_word_where_it_was() -> None:
    with at("never_stops") as running:
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 1
        assert "Timeout (" in log_of(running)  # where it was as well, of the newest hundred threads


def test_a_signal_is_heard_by_whichever_thread_it_reaches() -> None:
    with process(*SERVE) as running:
        ready_address(running)
        threads = [int(name) for name in os.listdir(f"/proc/{running.pid}/task")]
        other = next(number for number in threads if number != running.pid)
        assert ctypes.CDLL(None).tgkill(running.pid, other, signal.SIGTERM) == 0
        assert running.wait(TIMEOUT_S) == 0


# SIGHUP


def test_sighup_has_tokens_read_again_and_ends_nothing(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with process(*SERVE, "--tokens", str(file.path), start_new_session=True) as running:
        address = ready_address(running)
        bob = file.add("bob")
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: f"{file.path} was read again: 2 tokens" in log_of(running))
        with connect(address, token=bob) as llm:
            assert llm.is_serving()
        file.path.write_text("alice\n")
        running.send_signal(signal.SIGHUP)
        wait_until(lambda: "the tokens read before stay in effect" in log_of(running))
        with connect(address, token=bob) as llm:
            assert llm.model_info().name == "demo"
        with pytest.raises(AuthError):
            connect(address, token="of nobody")
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0
        assert log_of(running).count("SIGHUP: reading the files of tokens and certificates again") == 2


def test_whoever_closes_the_terminal_of_a_server_ends_it() -> None:
    terminal, end = pty.openpty()
    on_it = (sys.executable, "-c", ON_A_TERMINAL, os.ttyname(end))
    with process(*SERVE, before=on_it) as running:
        ready_address(running)
        os.close(end)
        os.close(terminal)  # the system sends SIGHUP to the leader of its session
        assert running.wait(TIMEOUT_S) == 0
        assert "SIGHUP: draining" in log_of(running)


def test_nohup_is_minded() -> None:
    with process(*SERVE, before=("nohup",), stdin=subprocess.DEVNULL) as running:
        ready_address(running)
        assert int(field(running, "SigIgn"), 16) & 1 << signal.SIGHUP - 1
        running.send_signal(signal.SIGTERM)
        assert running.wait(TIMEOUT_S) == 0


def field(running: subprocess.Popen[str], name: str) -> str:
    """Of what the system says of a process."""
    lines = Path(f"/proc/{running.pid}/status").read_text(encoding="ascii").splitlines()
    return next(line.partition(":")[2].strip() for line in lines if line.startswith(f"{name}:"))
