"""Small reads of one client, with the server otherwise idle and beside a contribution graph of 512 tokens.

A model of GPT-2 small's width. The small reads are an attention matrix, which a call's own thread answers, and the
scores of a vector, which the model thread computes, as it does the graph; the graph is another client's, one layer
after the other without a pause.

    cd benchmarks && ../.venv/bin/python -m analysis.small_reads_beside [--quick]
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from peers import shapes
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import Worker, workers
from peers.serving import server_process

GOAL = Goal("lower", 5.0)
READS = ("attention_matrix", "unembed")
GRAPH_TOKENS = 512
SETTLING_S = 0.05


@dataclass
class Row:
    """One kind of small read: percentiles of each phase in ms."""

    read: str
    idle: list[tuple[float, float]] = field(default_factory=list)
    beside: list[tuple[float, float]] = field(default_factory=list)
    layer_s: list[float] = field(default_factory=list)

    def figures(self) -> Figures:
        ratio = statistics.median(b[1] / a[1] for a, b in zip(self.idle, self.beside, strict=True))
        sides = {"idle": self.idle, "beside_graph": self.beside}
        return {
            "read": self.read,
            **GOAL.figures(ratio),
            **{f"{name}_p50_ms": round(statistics.median(p50 for p50, _ in side), 3) for name, side in sides.items()},
            **{f"{name}_p99_ms": round(statistics.median(p99 for _, p99 in side), 3) for name, side in sides.items()},
            "seconds_of_a_layer": round(statistics.median(self.layer_s), 3),
            "pairs": len(self.idle),
        }


def phase(reader: Worker, read: str, seconds: float) -> tuple[float, float]:
    """p50 and p99."""
    percentiles = statistics.quantiles(
        reader.ask({"clients": 1, "seconds": seconds, "read": read}), n=100, method="inclusive"
    )
    return percentiles[49], percentiles[98]


def pair(reader: Worker, analyst: Worker, row: Row, seconds: float) -> None:
    """Idle, and beside."""
    row.idle.append(phase(reader, row.read, seconds))
    analyst.ask("start")
    time.sleep(SETTLING_S)
    row.beside.append(phase(reader, row.read, seconds))
    ended = analyst.ask("stop")
    row.layer_s.append(ended["seconds"] / ended["answers"])


def measure(pairs: int, seconds: float) -> Sequence[Figures]:
    rows = [Row(read) for read in READS]
    with (
        shapes.saved(shapes.part_of_gpt2_small(6)) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        workers(1, "long_analysis", address, GRAPH_TOKENS) as (analyst,),
        workers(1, "small_reads", address) as (reader,),
    ):
        for read in READS:
            phase(reader, read, seconds)  # everyone connects
        for number in range(pairs):
            progress(f"pair {number + 1} of {pairs} ...")
            for row in rows:
                pair(reader, analyst, row, seconds)
    return [row.figures() for row in rows]


def main() -> None:
    quick = is_quick(__doc__)
    rows = measure(3, 1.0) if quick else measure(9, 3.0)
    worse = max(rows, key=lambda row: row["ratio"])
    report("small_reads_beside", worse, quick="3 pairs of 1 s, not 9 of 3 s" if quick else None, rows=rows)


if __name__ == "__main__":
    main()
