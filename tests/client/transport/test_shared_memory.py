"""Large tensors through shared memory: the same bits as by the socket, and nothing is left behind."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from support.network.proxy import interrupting
from support.servers.patience import waiting
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors
from transparent_llm.client.transport.shared_memory import Ring
from transparent_llm.wire import ring

pytestmark = pytest.mark.skipif(not ring.DIRECTORY.is_dir(), reason="shared memory files are a matter of Linux")

ROWS = [list(range(1, 61))] * 31
"""31 rows of 60 tokens: the logits of the tiny model are 3.7 MB."""

READS = [("logits",), ("residual_in", 1), ("decomposed_attn", 3, 1), ("attention_matrix", 2, 0, 1)]


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring, "WORTH_BYTES", 1)


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """In which nobody else has files."""
    with tempfile.TemporaryDirectory(dir=ring.DIRECTORY) as own:
        monkeypatch.setattr(ring, "DIRECTORY", Path(own))
        yield Path(own)


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The bytes of each piece that came through shared memory."""
    sizes: list[int] = []
    take = Ring.take

    def counted(self: Ring, slot: int, target: memoryview) -> None:
        take(self, slot, target)
        sizes.append(len(target))

    monkeypatch.setattr(Ring, "take", counted)
    return sizes


def local_run() -> TransparentLlm:
    local = tiny().copy()
    local.run_tokens(ROWS)
    return local


@contextmanager
def client_of(address: str, **options: object) -> Iterator[RemoteTransparentLlm]:
    with RemoteTransparentLlm(address, timeout_s=30, cache_bytes=0, **options) as llm:  # type: ignore[arg-type]
        llm.run_tokens(ROWS)
        yield llm


@pytest.mark.parametrize("read", READS, ids=str)
def test_values_have_the_same_bits(read: tuple[object, ...], taken: list[int]) -> None:
    name, indices = str(read[0]), read[1:]
    with running() as server, client_of(server.address) as llm:
        for _ in range(3):
            assert torch.equal(getattr(llm, name)(*indices), getattr(local_run(), name)(*indices))
    assert taken


def test_nothing_of_a_large_value_goes_by_the_socket(taken: list[int]) -> None:
    wanted = local_run().logits()
    with running() as server, client_of(server.address) as llm:
        assert torch.equal(llm.logits(), wanted)
    assert sum(taken) == wanted.nbytes
    assert len(taken) > 3  # more pieces than one


@pytest.mark.parametrize("chunk_bytes", [1000, 4096, 2**20, 4 * 2**20])
def test_pieces_fit_into_slots_whatever_the_servers_chunks_are(chunk_bytes: int, taken: list[int]) -> None:
    with running(chunk_bytes=chunk_bytes) as server, client_of(server.address) as llm:
        assert torch.equal(llm.logits(), local_run().logits())
    assert max(taken) == min(chunk_bytes, 2**20)


def test_many_tensors_of_one_stream_with_a_dtype(taken: list[int]) -> None:
    local = local_run()
    with running() as server, client_of(server.address) as llm:
        for read, value in zip(READS, llm.fetch(READS), strict=True):
            assert torch.equal(value, getattr(local, str(read[0]))(*read[1:]))
        with llm.reading(dtype=torch.bfloat16, batch=slice(1, 9, 2)):
            assert torch.equal(llm.logits(), local.logits()[1:9:2].bfloat16())
    assert taken


def test_small_values_go_by_the_socket(taken: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with running() as server, client_of(server.address) as llm:
        assert torch.equal(llm.logits(), local_run().logits())
    assert not taken


@pytest.mark.parametrize("who", ["client", "server"])
def test_each_side_can_do_without(who: str, taken: list[int]) -> None:
    with running(shared_memory=who != "server") as server:
        with client_of(server.address, shared_memory=who != "client") as llm:
            assert torch.equal(llm.logits(), local_run().logits())
    assert not taken


def test_a_unix_socket_has_it_too(taken: list[int], tmp_path: os.PathLike[str]) -> None:
    with running(listen=f"unix:{tmp_path}/s") as server, client_of(server.address) as llm:
        assert torch.equal(llm.logits(), local_run().logits())
    assert taken


@pytest.mark.parametrize("after", [40_000, 60_000, 80_000])
def test_an_interrupted_stream_goes_on_with_another_ring(after: int, taken: list[int]) -> None:
    watcher = Watcher()
    with running(watcher, chunk_bytes=1000) as server, interrupting(server.address, [after]) as proxy:
        with client_of(proxy.address) as llm:
            assert torch.equal(llm.logits(), local_run().logits())
        assert proxy.interruptions == 1
    assert taken


def test_a_ring_that_a_server_may_still_write_to_is_not_used_again(taken: list[int]) -> None:
    watcher = Watcher(hold_after=1)  # the first stream, until its caller has left
    with running(watcher) as server, client_of(server.address) as llm:
        with waiting(llm, timeout_s=2), pytest.raises(errors.DeadlineError):
            llm.logits()
        watcher.release.set()  # also if that stream never came
        assert not llm._calls._rings._idle
        assert torch.equal(llm.logits(), local_run().logits())
    assert taken


def test_many_threads_have_rings_of_their_own(taken: list[int]) -> None:
    wanted, wrong = local_run().logits(), []
    with running() as server, client_of(server.address) as llm:

        def read() -> None:
            twin = llm.copy()
            if not all(torch.equal(twin.logits(), wanted) for _ in range(3)):
                wrong.append(twin)

        threads = [threading.Thread(target=read) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong
    assert sum(taken) == 18 * wanted.nbytes


def test_who_sweeps_takes_no_ring_that_is_being_made(folder: Path) -> None:
    over = threading.Event()

    def keep_sweeping() -> None:
        while not over.is_set():
            ring.sweep()

    sweepers = [threading.Thread(target=keep_sweeping) for _ in range(2)]
    for sweeper in sweepers:
        sweeper.start()
    try:
        made = [Ring() for _ in range(200)]
    finally:
        over.set()
        for sweeper in sweepers:
            sweeper.join()
    assert {folder / one.offer.name for one in made} == set(folder.iterdir())
    for one in made:
        one.close()


def test_nothing_is_left_behind(folder: Path) -> None:
    with running() as server:
        llm = RemoteTransparentLlm(server.address, timeout_s=30, cache_bytes=0)
        llm.run_tokens(ROWS)
        for _ in range(3):
            llm.logits()
            llm.attention_matrix(0, 0, 0)
        with pytest.raises(errors.IndexOutOfRangeError):
            llm.residual_in(99)
        llm.close()
        del llm
        gc.collect()
    assert not list(folder.iterdir())


def test_what_is_known_to_be_small_is_offered_no_ring(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with running(shared_memory=False) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        monkeypatch.setattr(ring, "WORTH_BYTES", 60 * 60 * 8 + 1)
        llm.attention_matrix(3, 0, 1)
        assert not list(folder.iterdir())
        monkeypatch.setattr(ring, "WORTH_BYTES", 1)
        llm.attention_matrix(2, 0, 1)
        assert list(folder.iterdir())


def test_a_process_that_ends_without_closing_leaves_nothing(folder: Path) -> None:
    script = (
        "import os, pathlib, sys; from transparent_llm import RemoteTransparentLlm; "
        "from transparent_llm.wire import ring; ring.DIRECTORY = pathlib.Path(sys.argv[2]); ring.WORTH_BYTES = 1; "
        "llm = RemoteTransparentLlm(sys.argv[1]); llm.run(['a b']); llm.attention_matrix(0, 0, 0); "
        "assert os.listdir(sys.argv[2])"
    )
    with running(shared_memory=False) as server:
        command = [sys.executable, "-c", script, server.address, str(folder)]
        subprocess.run(command, check=True, timeout=60, capture_output=True)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("target", "is_local"),
    [
        ("127.0.0.1:5", True),
        ("127.1.2.3:5", True),
        ("localhost:5", True),
        ("[::1]:5", True),
        ("unix:/tmp/x", True),
        ("example.org:5", False),
        ("10.0.0.1:5", False),
        ("127.example.org:5", False),
        ("1270.0.0.1:5", False),
        ("dns:///localhost:5", True),
        ("[::2]:5", False),
    ],
)
def test_only_a_server_on_this_host_is_offered_any(target: str, is_local: bool) -> None:
    llm = RemoteTransparentLlm(target)
    assert llm._config.is_local == is_local
