"""Small reads by 1, 8 and 64 clients, with the server otherwise idle and beside a long dense stream.

Clients read one attention matrix of 64 positions of the demo model again and again, without a pause, and keep nothing.
Each has a thread of its own in one of two processes; those of a process share its connection. The stream, in
yet another process, is `decomposed_attn` of 256 positions, computed and sent whole again and again.

    .venv/bin/python benchmarks/readers.py [--quick]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import Worker, workers
from peers.serving import server_process
from peers.spread import Median

GOAL = Goal("lower", 5.0)
COUNTS = (1, 8, 64)
QUICK_COUNTS = (1, 64)
N_PROCESSES = 2
STREAM_TOKENS = 256
SETTLING_S = 0.05


@dataclass
class Latencies:
    """Milliseconds, a figure for each phase."""

    p50: list[float] = field(default_factory=list)
    p99: list[float] = field(default_factory=list)
    reads: int = 0

    def add(self, taken: Sequence[float]) -> None:
        """One phase."""
        percentiles = statistics.quantiles(taken, n=100, method="inclusive")
        self.p50.append(percentiles[49])
        self.p99.append(percentiles[98])
        self.reads += len(taken)

    def figures(self) -> Figures:
        p50, p99 = (round(statistics.median(values), 3) for values in (self.p50, self.p99))
        return {"p50_ms": p50, "p99_ms": p99, "reads": self.reads}


@dataclass
class Row:
    """One number of clients."""

    clients: int
    idle: Latencies = field(default_factory=Latencies)
    beside: Latencies = field(default_factory=Latencies)
    stream_mb_per_s: list[float] = field(default_factory=list)

    def figures(self) -> Figures:
        ratios = [beside / idle for beside, idle in zip(self.beside.p99, self.idle.p99, strict=True)]
        return {
            "clients": self.clients,
            **GOAL.figures(Median.of(ratios)),
            "idle": self.idle.figures(),
            "beside_stream": self.beside.figures(),
            "stream_mb_per_s": round(statistics.median(self.stream_mb_per_s), 1),
            "pairs": len(ratios),
        }


def read(readers: Sequence[Worker], clients: int, phase_s: float) -> list[float]:
    """Milliseconds of each read of all clients, which are dealt out to the processes."""
    for i, reader in enumerate(readers):
        reader.tell({"clients": len(range(i, clients, len(readers))), "seconds": phase_s})
    return [taken for reader in readers for taken in reader.hear()]


@contextmanager
def long_stream(streamer: Worker, row: Row) -> Iterator[None]:
    """It goes on within the block."""
    streamer.ask("start")
    time.sleep(SETTLING_S)
    yield
    ended = streamer.ask("stop")
    row.stream_mb_per_s.append(ended["bytes"] / ended["seconds"] / 1e6)
    time.sleep(SETTLING_S)


def measure(counts: Sequence[int], pairs: int, phase_s: float) -> list[Figures]:
    rows = [Row(clients) for clients in counts]
    with (
        server_process() as address,
        workers(1, "long_stream", address, STREAM_TOKENS) as (streamer,),
        workers(N_PROCESSES, "small_reads", address) as readers,
    ):
        read(readers, max(counts), phase_s)  # everyone connects
        for pair in range(pairs):
            progress(f"pair {pair + 1} of {pairs} ...")
            for row in rows:
                row.idle.add(read(readers, row.clients, phase_s))
                with long_stream(streamer, row):
                    row.beside.add(read(readers, row.clients, phase_s))
    return [row.figures() for row in rows]


def main() -> None:
    quick = is_quick(__doc__)
    phase_s = 0.4 if quick else 2.0
    rows = measure(QUICK_COUNTS, 7, phase_s) if quick else measure(COUNTS, 15, phase_s)
    left_out = f"no row of 8 clients, phases of {phase_s:g} s" if quick else None
    report("readers", rows[0], quick=left_out, rows=rows, phase_s=phase_s, processes=N_PROCESSES)


if __name__ == "__main__":
    main()
