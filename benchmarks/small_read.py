"""A small read (one attention matrix) beside a bare gRPC echo of the same size, both from a process of their own.

Nothing is kept or read ahead, so each read is a call.

    .venv/bin/python benchmarks/small_read.py [--quick]
"""

from __future__ import annotations

import grpc
from peers import echo
from peers.outcome import Goal, is_quick, report
from peers.processes import peer_process
from peers.timing import Timings, in_turn, median_ms, ratio

from transparent_llm import connect
from transparent_llm.demo import server_process
from transparent_llm.network.proxies import Route

GOAL = Goal("lower", 1.3)
N_TOKENS = 64


def measure(pairs: int, reads: int) -> tuple[int, Timings]:
    """Bytes of a read, and the median times of `reads` of them."""
    with server_process() as address, connect(address, cache_bytes=0) as llm:
        llm.run_tokens([list(range(1, N_TOKENS + 1))])
        n_bytes = llm.attention_matrix(0, 1, 0).nbytes
        with peer_process("echo", n_bytes) as peer, grpc.insecure_channel(peer, Route(peer).options) as channel:
            bare = channel.unary_stream(echo.PATH)
            actions = {"read": lambda: llm.attention_matrix(0, 1, 0), "echo": lambda: list(bare(b""))}
            return n_bytes, in_turn(actions, pairs, times=reads)


def main() -> None:
    quick = is_quick(__doc__)
    pairs, reads = (7, 50) if quick else (15, 200)
    n_bytes, timings = measure(pairs, reads)
    report(
        "small_read",
        GOAL.figures(ratio(timings, "read", "echo")),
        quick=f"{reads} reads a pair" if quick else None,
        bytes=n_bytes,
        pairs=pairs,
        reads_per_pair=reads,
        read_ms=median_ms(timings, "read"),
        echo_ms=median_ms(timings, "echo"),
    )


if __name__ == "__main__":
    main()
