"""How long one owner's run takes while another owner has 32 runs waiting, beside the same with nobody else.

Runs are 8 rows of 128 tokens of the demo model, each new. The one owner runs and reads one attention matrix, one after
the other; the other one, in a process of its own, has 32 threads that each run something as soon as they have an
answer. Both have tokens, so that the server knows them apart.

    .venv/bin/python benchmarks/fairness.py [--quick]
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers.crowd_of_runs import batch
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import Worker, workers
from peers.serving import server_process
from peers.spread import Median

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm_server.access.bearer_tokens import new_bearer_token

GOAL = Goal("lower", 4.0)
WAITING = 32
_numbers = itertools.count(500_000)


def run_and_read(llm: RemoteTransparentLlm, times: int) -> list[float]:
    """Seconds of each run with a read of it."""
    taken = []
    for _ in range(times):
        started = time.perf_counter()
        llm.run_tokens(batch(next(_numbers)))
        llm.attention_matrix(0, 2, 1)
        taken.append(time.perf_counter() - started)
    return taken


@contextmanager
def waiting_runs(crowd: Worker, counts: list[dict[str, int]]) -> Iterator[None]:
    """Of the other owner, within the block."""
    crowd.ask("start")
    yield
    counts.append(crowd.ask("stop"))


@contextmanager
def two_owners() -> Iterator[tuple[RemoteTransparentLlm, Worker]]:
    """Of one server, whose queue has room for all."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, lines = zip(*(new_bearer_token(owner) for owner in ("one", "busy")), strict=True)
        file = Path(folder, "tokens.txt")
        file.write_text("\n".join(lines), encoding="utf-8")
        with (
            server_process("--tokens", str(file), "--queue-length", str(2 * WAITING)) as address,
            connect(address, token=tokens[0]) as llm,
            workers(1, "crowd_of_runs", address, tokens[1], WAITING) as (crowd,),
        ):
            yield llm, crowd


def measure(pairs: int, times: int) -> Figures:
    alone, beside, counts = [], [], list[dict[str, int]]()
    with two_owners() as (llm, crowd):
        run_and_read(llm, 2)
        for pair in range(pairs):
            progress(f"pair {pair + 1} of {pairs} ...")
            alone.append(statistics.median(run_and_read(llm, times)))
            with waiting_runs(crowd, counts):
                beside.append(statistics.median(run_and_read(llm, times)))
    return {
        **GOAL.figures(Median.of(b / a for a, b in zip(alone, beside, strict=True))),
        "alone_s": round(statistics.median(alone), 4),
        "beside_s": round(statistics.median(beside), 4),
        "others_runs": sum(count.get("computed", 0) for count in counts),
        "others_told_busy": sum(count.get("busy", 0) for count in counts),
        "pairs": pairs,
        "times": times,
    }


def main() -> None:
    quick = is_quick(__doc__)
    figures = measure(5, 3) if quick else measure(15, 5)
    report("fairness", figures, quick="5 pairs of 3 runs" if quick else None, waiting=WAITING)


if __name__ == "__main__":
    main()
