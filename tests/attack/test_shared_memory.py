"""Clients that offer shared memory and do not read it, truncate it, lie about it, or are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path

import grpc
import pytest

from attack.victim import ATTACKER, Victim, standing_by, victim
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client.transport.shared_memory import Ring
from transparent_llm.demo import server_process
from transparent_llm.network.proxies import Route
from transparent_llm.wire import requests, ring
from transparent_llm.wire.rpcs import Stub

pytestmark = [
    pytest.mark.measured,
    pytest.mark.skipif(not ring.DIRECTORY.is_dir(), reason="shared memory files are a matter of Linux"),
]

ROWS = [list(range(2, 252))] * 18
"""Of the demo model: logits of 18 MB, which are worth a ring."""

STALL_S = 1.0
PATIENCE_S = 60.0

Misuse = Callable[[FileIO], None]


def nothing(_: FileIO) -> None:
    """Pieces come, and none is counted as read."""


def truncated(file: FileIO) -> None:
    os.ftruncate(file.fileno(), 0)


def made_huge(file: FileIO) -> None:
    os.ftruncate(file.fileno(), 2**40)


def counted_backwards(file: FileIO) -> None:
    os.pwrite(file.fileno(), b"\xff" * 8, 64)  # far ahead, so that all slots seem free
    os.pwrite(file.fileno(), bytes(8), 64)


class Stalled:
    """One stream whose ring nobody reads, though its messages are taken."""

    def __init__(self, attacked: Victim, run_id: str, misuse: Misuse) -> None:
        self.messages = 0
        self.ended_after_s = 0.0
        self.code: grpc.StatusCode | None = None
        self._misuse = misuse
        self._thread = threading.Thread(target=self._read, args=(attacked, run_id))
        self._thread.start()

    def join(self) -> None:
        self._thread.join()

    def _read(self, attacked: Victim, run_id: str) -> None:
        began = time.monotonic()
        with closing(Ring()) as offered, grpc.insecure_channel(attacked.address, Route("").options) as channel:
            offered.begin()
            request = requests.of_method("logits", run_id)
            requests.offer(request, offered.offer)
            call = Stub(channel).Logits(request, timeout=PATIENCE_S, metadata=attacked.metadata(ATTACKER))
            try:
                for _ in call:
                    self.messages += 1
                    self._misuse(offered._file)
            except grpc.RpcError as error:
                self.code = error.code()
        self.ended_after_s = time.monotonic() - began


@pytest.fixture(scope="module")
def attacked() -> Iterator[Victim]:
    with victim("--stall-s", str(STALL_S)) as started:
        yield started


@pytest.mark.parametrize(
    "misuse", [nothing, truncated, made_huge, counted_backwards], ids=lambda misuse: misuse.__name__
)
def test_streams_whose_shared_memory_nobody_reads_are_cancelled(
    attacked: Victim, misuse: Misuse, is_long: bool
) -> None:
    said = "shared memory: nobody read for 1 s, cancelled"
    told = attacked.log.count(said)
    with attacked.client(ATTACKER) as llm:
        llm.run_tokens(ROWS)
        run_id = llm.run_id()
        llm.logits()  # once, so that the memory of a read counts as there before
    with standing_by(attacked):
        stalled = [Stalled(attacked, run_id, misuse) for _ in range(40 if is_long else 8)]
        for stream in stalled:
            stream.join()
    slowest = max(stream.ended_after_s for stream in stalled)
    print(f"{len(stalled)} streams held a thread for {slowest:.1f} s at most (stall_s {STALL_S:g})")
    cancelled = [stream for stream in stalled if stream.code is grpc.StatusCode.CANCELLED]
    assert slowest < PATIENCE_S / 2
    assert cancelled or misuse is counted_backwards
    assert attacked.log.count(said) > told or not cancelled


def test_slots_of_a_byte_are_declined(attacked: Victim) -> None:
    """Each would cost a message: 18 million of them for these logits."""
    with attacked.client(ATTACKER) as llm:
        llm.run_tokens(ROWS)
        run_id = llm.run_id()
    with closing(Ring()) as offered, grpc.insecure_channel(attacked.address, Route("").options) as channel:
        offered.begin()
        request = requests.of_method("logits", run_id)
        requests.offer(request, offered.offer._replace(slots=2**20, slot_bytes=1))
        call = Stub(channel).Logits(request, timeout=PATIENCE_S, metadata=attacked.metadata(ATTACKER))
        assert sum(1 for _ in call) < 100


# Clients that were killed

CLIENT = """
import os, sys
from transparent_llm import RemoteTransparentLlm
from transparent_llm.wire import ring
ring.WORTH_BYTES = 1
llm = RemoteTransparentLlm(sys.argv[1])
llm.run(["a b"])
llm.attention_matrix(0, 0, 0)
print(llm._calls._rings._idle[0]._path.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In which nobody else has files."""
    with tempfile.TemporaryDirectory(dir=ring.DIRECTORY) as own:
        monkeypatch.setattr(ring, "DIRECTORY", Path(own))
        yield Path(own)


def client_process(address: str) -> tuple[subprocess.Popen[str], Path]:
    """A client with an idle ring, and its file."""
    process = subprocess.Popen(
        [sys.executable, "-c", CLIENT, address], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, Path("/dev/shm") / process.stdout.readline().strip()


def killed(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


@pytest.mark.parametrize("by", ["client", "server"])
def test_files_of_killed_clients_are_swept_away_and_those_of_living_ones_are_not(
    by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running() as server:
        (dead, dead_file), (living, living_file) = client_process(server.address), client_process(server.address)
        try:
            assert dead_file.is_file()
            killed(dead)
            assert dead_file.is_file()
            if by == "client":
                monkeypatch.setattr(ring, "WORTH_BYTES", 1)
                with RemoteTransparentLlm(server.address) as llm:
                    llm.run(["a b"])
                    llm.attention_matrix(0, 0, 0)
            else:
                with server_process():
                    pass
            wait_until(lambda: not dead_file.exists())
            assert living_file.is_file()
        finally:
            killed(living)
            ring.sweep()
        assert not living_file.exists()


def test_only_such_files_of_this_user_are_swept_away(folder: Path) -> None:
    name = "transparent-llm-" + "0" * 32
    for spared in ("another", name + "0", name.upper(), "transparent-llm-"):
        (folder / spared).write_bytes(b"")
    (folder / name.replace("0", "1")).symlink_to(folder / "another")
    os.mkfifo(folder / name.replace("0", "2"))
    (folder / name.replace("0", "3")).mkdir()
    (folder / name).write_bytes(b"")
    with closing(Ring()) as mine:
        before = set(folder.iterdir())
        assert ring.sweep() == 1
        assert before - set(folder.iterdir()) == {folder / name}
        assert mine._path.exists()


def test_threads_at_once_leave_few_files_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "WORTH_BYTES", 1)
    with running(shared_memory=False) as server, RemoteTransparentLlm(server.address, cache_bytes=0) as llm:
        llm.run(["a b"])
        start = threading.Barrier(40)

        def read() -> None:
            twin = llm.copy()
            start.wait(60)
            twin.attention_matrix(0, 0, 0)

        threads = [threading.Thread(target=read) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert 1 <= len(list(folder.iterdir())) <= 16
