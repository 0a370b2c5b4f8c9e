"""64 clients at once, each of which knows its values: none is wrong, no call is lost, the server's memory stays."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from safetensors.torch import save_file

from soak.cases import CASES, FAMILIES, READS, key, rows
from support.models.families import save
from transparent_llm_server import TransformerLensTransparentLlm

pytestmark = pytest.mark.measured

PROCESSES, THREADS = 4, 16
SEED = 20261124
RUN_STORE_BYTES = 16_000_000
"""Fewer runs than the 180 cases, about twice the 64 that are being read at a time."""

SAMPLE_S = 0.25
GROWTH_BYTES = 64 * 2**20
"""Of resident memory after warm-up: what allocators of some hundred threads keep. All that is read is far more."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("models")
    return {family: save(family, root / family) for family in FAMILIES}


@pytest.fixture(scope="module")
def expected(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every value that a client can ask for, from the models in this process."""
    values = {}
    for family, folder in folders.items():
        llm = TransformerLensTransparentLlm(str(folder), device="cpu")
        for case in range(CASES):
            llm.run_tokens(rows(case))
            for read in READS:
                values[key(family, case, read)] = getattr(llm, read[0])(*read[1:]).clone().contiguous()
    file = tmp_path_factory.mktemp("expected") / "values.safetensors"
    save_file(values, file)
    return file


@contextmanager
def serving(folders: dict[str, Path], config: Path) -> Iterator[tuple[int, str]]:
    """The process and the address of a server."""
    config.write_text(f"run_store_bytes = {RUN_STORE_BYTES}\n", encoding="utf-8")
    models = [word for family, folder in folders.items() for word in ("--model", f"{family}={folder}")]
    arguments = ["--listen", "127.0.0.1:0", "--device", "cpu", "--config", str(config), *models]
    server = subprocess.Popen(
        [sys.executable, "-m", "transparent_llm", "serve", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    )
    with server:
        try:
            assert server.stdout is not None
            yield server.pid, server.stdout.readline().removeprefix("ready: ").strip()
        finally:
            server.kill()


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class Memory(threading.Thread):
    """Samples the resident memory of a process until it is told to stop."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self._file = Path(f"/proc/{pid}/statm")
        self.enough = threading.Event()
        self._samples: list[tuple[float, int]] = []

    def run(self) -> None:
        while not self.enough.wait(SAMPLE_S):
            pages = int(self._file.read_text(encoding="ascii").split()[1])
            self._samples.append((time.monotonic(), pages * os.sysconf("SC_PAGE_SIZE")))

    def stop(self) -> None:
        """While there is the process still."""
        self.enough.set()
        self.join()

    def since(self, began: float) -> list[int]:
        return [size for at, size in self._samples if at >= began]


def test_soak(folders: dict[str, Path], expected: Path, tmp_path: Path, is_long: bool) -> None:
    seconds = 300 if is_long else 30
    program = str(Path(__file__).with_name("soak_client.py"))
    with serving(folders, tmp_path / "server.toml") as (pid, address):
        memory = Memory(pid)
        clients = [
            subprocess.Popen(
                [sys.executable, program, address, str(expected), str(seconds), str(SEED + number), str(THREADS)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(),
            )
            for number in range(PROCESSES)
        ]
        memory.start()
        try:
            outputs = [client.communicate(timeout=seconds + 180) for client in clients]
        finally:
            memory.stop()
    assert [client.returncode for client in clients] == [0] * PROCESSES, outputs
    told = [json.loads(out.splitlines()[-1]) for out, _ in outputs]
    samples = memory.since(max(counted.pop("began") for counted in told))  # all were at work, by one clock
    counts: Counter[str] = Counter()
    for counted in told:
        counts.update(counted)
    third = len(samples) // 3
    before, after = (statistics.median(part) for part in (samples[third : 2 * third], samples[2 * third :]))
    print(f"\n{dict(counts)}; {counts['calls'] / seconds:.0f} calls/s; memory {before:.0f} -> {after:.0f} bytes")
    assert (counts["wrong"], counts["lost"]) == (0, 0), [errors for _, errors in outputs]
    assert counts["ended"] == PROCESSES * THREADS
    assert counts["reruns"] > 0  # each by eviction: nobody releases runs, which here belong to all
    assert counts["cancelled"] > 0
    assert after - before < GROWTH_BYTES
