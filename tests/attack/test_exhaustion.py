"""A process that may start no more threads goes on; one without file descriptors says so, and ends."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from attack.silence import REFLECTION, RUN, silent
from attack.victim import OTHER, standing_by, victim
from support.servers.engines import SOON
from support.servers.polling import wait_until
from transparent_llm_server.app import SERVING_LOST

pytestmark = pytest.mark.measured

NOBODY = 54_321
"""A user of no name: root may start as many threads as it likes, whatever the limit."""

READS_ALL = ("--inh-caps=+dac_override", "--ambient-caps=+dac_override")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *READS_ALL)
BEFORE = AS_NOBODY if os.geteuid() == 0 else ()
LIMITED = Path(__file__).parent / "limited_server.py"


def test_without_another_thread_to_start_it_serves_on() -> None:
    """60 calls that began and sent nothing took gRPC's own thread with them."""
    with victim(before=BEFORE, script=LIMITED) as attacked, standing_by(attacked):
        os.kill(attacked.process.pid, signal.SIGUSR1)
        calls = [RUN, REFLECTION] * 60
        with silent(attacked.address, calls, attacked.metadata(), connections=4):
            with attacked.client(OTHER) as llm:
                for _ in range(20):
                    llm.run(["What say you?"])


def test_it_does_not_start_where_it_may_not_start_its_threads() -> None:
    limited = ["prlimit", "--nproc=48", *BEFORE]
    command = [*limited, sys.executable, "-m", "transparent_llm", "serve", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=4 * SOON)
    assert found.returncode != 0
    assert "could be started" in found.stderr
    assert "--max-streams" in found.stderr
    assert "Traceback" not in found.stderr


def test_without_another_file_descriptor_it_says_so_and_ends() -> None:
    with victim("--canary-s", "0.5") as attacked, ExitStack() as stack:
        files = len(os.listdir(f"/proc/{attacked.process.pid}/fd"))
        resource.prlimit(attacked.process.pid, resource.RLIMIT_NOFILE, (files + 4, files + 4))
        host, _, port = attacked.address.rpartition(":")
        for _ in range(30):
            connection = stack.enter_context(socket.socket())
            with suppress(OSError):
                connection.connect((host, int(port)))
        assert attacked.process.wait(2 * SOON) == SERVING_LOST
        assert "the server's own call was not answered" in attacked.log


def test_the_connections_that_took_them_gone_it_serves_again() -> None:
    with victim("--canary-s", "5") as attacked:
        with ExitStack() as stack:
            pid = attacked.process.pid
            files = len(os.listdir(f"/proc/{pid}/fd"))
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (files + 8, files + 8))
            host, _, port = attacked.address.rpartition(":")
            for _ in range(30):
                connection = stack.enter_context(socket.socket())
                with suppress(OSError):
                    connection.connect((host, int(port)))
            wait_until(lambda: len(os.listdir(f"/proc/{pid}/fd")) >= files + 8)
        with attacked.client(OTHER) as llm:
            llm.run(["What say you?"])
        assert attacked.is_alive()


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="no /proc")
def test_calls_leave_no_threads_behind() -> None:
    with victim() as attacked, standing_by(attacked):
        before = attacked.threads
        for _ in range(3):
            with silent(attacked.address, [RUN] * 60, attacked.metadata()):
                pass
        assert attacked.threads <= before + 8  # gRPC's own, which come and go
