"""Small reads (one attention matrix) beside a bare gRPC echo of the same size: the latency of one, and the rate of 64.

Server, echo and the 64 clients have processes of their own. Nothing is kept or read ahead, so each read is a call. The
latency is taken with nothing else under way, one side after the other, again and again.

    .venv/bin/python benchmarks/small_read.py [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack

import grpc
from peers import echo
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import Worker, peer_process, workers
from peers.serving import server_process
from peers.spread import Median
from peers.timing import in_turn, median_ms, ratio

from transparent_llm import connect
from transparent_llm.network.proxies import Route

LATENCY_GOAL = Goal("lower", 1.3)
RATE_GOAL = Goal("higher", 0.7)
N_TOKENS = 64
CLIENTS, N_PROCESSES = 64, 2


def latency(address: str, peer: str, pairs: int, reads: int) -> Figures:
    """Of one client: the median times of `reads` calls in each pair."""
    progress(f"one client, {pairs} pairs ...")
    with connect(address, cache_bytes=0) as llm, grpc.insecure_channel(peer, Route(peer).options) as channel:
        llm.run_tokens([list(range(1, N_TOKENS + 1))])
        bare = channel.unary_stream(echo.PATH)
        actions = {"read": lambda: llm.attention_matrix(0, 1, 0), "echo": lambda: list(bare(b""))}
        timings = in_turn(actions, pairs, times=reads)
    medians = {f"{name}_ms": median_ms(timings, name) for name in timings}
    return {"clients": 1, **LATENCY_GOAL.figures(ratio(timings, "read", "echo")), **medians, "pairs": pairs}


def rate(address: str, peer: str, pairs: int, phase_s: float) -> Figures:
    """Of many clients: calls a second of all together."""
    rates: dict[str, list[float]] = {"read": [], "echo": []}
    with ExitStack() as stack:
        crowds = {
            "read": stack.enter_context(workers(N_PROCESSES, "small_reads", address)),
            "echo": stack.enter_context(workers(N_PROCESSES, "echo_reads", peer)),
        }
        for pair in range(-1, pairs):
            progress(f"{CLIENTS} clients, pair {pair + 1} of {pairs} ...")
            for side in rates if pair % 2 else reversed(rates):
                found = calls_per_s(crowds[side], phase_s)
                rates[side] += [found] if pair >= 0 else []  # the first connects and warms up
    ratios = [read / bare for read, bare in zip(rates["read"], rates["echo"], strict=True)]
    medians = {f"{side}_calls_per_s": round(Median.of(found), 1) for side, found in rates.items()}
    return {"clients": CLIENTS, **RATE_GOAL.figures(Median.of(ratios)), **medians, "pairs": pairs}


def calls_per_s(crowd: Sequence[Worker], phase_s: float) -> float:
    for worker in crowd:
        worker.tell({"clients": CLIENTS // len(crowd), "seconds": phase_s})
    return sum(len(worker.hear()) for worker in crowd) / phase_s


def main() -> None:
    quick = is_quick(__doc__)
    pairs, reads, phase_s = (7, 50, 0.5) if quick else (25, 200, 2.0)
    with server_process() as address, connect(address) as llm:
        llm.run_tokens([list(range(1, N_TOKENS + 1))])
        n_bytes = llm.attention_matrix(0, 1, 0).nbytes
        with peer_process("echo", n_bytes) as peer:
            rows = [latency(address, peer, pairs, reads), rate(address, peer, pairs, phase_s)]
    left_out = f"{pairs} pairs, of {reads} reads and of {phase_s:g} s" if quick else None
    report("small_read", rows[0], quick=left_out, rows=rows, bytes=n_bytes)


if __name__ == "__main__":
    main()
