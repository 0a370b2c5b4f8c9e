"""Through Envoy beside direct: calls a second of small reads, with 1 and 3 replicas, and a stream of 64 MiB.

Small reads: 16 clients with a run each, in two processes, read one attention matrix of 64 positions of the demo model
again and again. The stream: a residual stream of a wide layer, by the socket. All of it, Envoy with two threads too,
shares the machine's cores, so three replicas show what the proxy costs and not what more machines bring.

    .venv/bin/python benchmarks/cluster.py [--quick]
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from contextlib import ExitStack

from peers import shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import Worker, workers
from peers.replicas import Targets, cluster
from peers.spread import Median
from peers.timing import in_turn, median_ms, ratio

from transparent_llm import RemoteTransparentLlm, connect

GOAL = Goal("higher", 0.5)
COUNTS = (1, 3)
CLIENTS, N_PROCESSES = 16, 2
N_BYTES = 64 * 2**20
D_MODEL, N_TOKENS = 1024, 128


def calls_per_s(readers: Sequence[Worker], phase_s: float) -> float:
    """Of all clients together."""
    for reader in readers:
        reader.tell({"clients": CLIENTS // len(readers), "seconds": phase_s})
    return sum(len(reader.hear()) for reader in readers) / phase_s


def small_reads(count: int, pairs: int, phase_s: float) -> Figures:
    """One number of replicas."""
    rates: dict[str, list[float]] = {"envoy": [], "direct": []}
    with ExitStack() as stack:
        targets = stack.enter_context(cluster(count))
        by_way = {way: stack.enter_context(workers(N_PROCESSES, "small_reads", _of(targets, way))) for way in rates}
        for readers in by_way.values():
            calls_per_s(readers, phase_s)  # everyone connects
        for pair in range(pairs):
            progress(f"{count} replicas, pair {pair + 1} of {pairs} ...")
            for way in rates if pair % 2 else reversed(rates):
                rates[way].append(calls_per_s(by_way[way], phase_s))
    ratios = [envoy / direct for envoy, direct in zip(rates["envoy"], rates["direct"], strict=True)]
    medians = {f"{way}_calls_per_s": round(statistics.median(found), 1) for way, found in rates.items()}
    return {"what": "small_reads", "replicas": count, **GOAL.figures(Median.of(ratios)), **medians}


def _of(targets: Targets, way: str) -> str:
    return targets.envoy if way == "envoy" else targets.direct


def big_stream(rounds: int) -> Figures:
    """One replica, one client."""
    n_rows = N_BYTES // (4 * D_MODEL * N_TOKENS)
    with ExitStack() as stack:
        folder = stack.enter_context(shapes.saved(shapes.one_wide_layer(D_MODEL, N_TOKENS)))
        targets = stack.enter_context(cluster(1, "--model", f"wide={folder}"))
        clients: dict[str, RemoteTransparentLlm] = {}
        for way in ("envoy", "direct"):
            clients[way] = stack.enter_context(connect(_of(targets, way), cache_bytes=0, shared_memory=False))
            clients[way].run_tokens(FreshBatches(n_rows, N_TOKENS, clients[way].model_info().d_vocab).next())
            assert clients[way].residual_in(0).nbytes == N_BYTES
        progress(f"stream of {N_BYTES} bytes, {rounds} rounds ...")
        timings = in_turn({way: lambda llm=llm: llm.residual_in(0) for way, llm in clients.items()}, rounds)  # type: ignore[misc]
    rates = {f"{way}_gb_per_s": round(N_BYTES / 1e6 / median_ms(timings, way), 3) for way in timings}
    return {"what": "stream", "replicas": 1, **GOAL.figures(ratio(timings, "direct", "envoy")), **rates}


def main() -> None:
    quick = is_quick(__doc__)
    pairs, phase_s, rounds = (5, 0.5, 9) if quick else (15, 2.0, 25)
    rows = [small_reads(count, pairs, phase_s) for count in COUNTS]
    rows.append(big_stream(rounds))
    left_out = f"{pairs} pairs, phases of {phase_s:g} s" if quick else None
    report("cluster", rows[0], quick=left_out, rows=rows, clients=CLIENTS, phase_s=phase_s, pairs=pairs)


if __name__ == "__main__":
    main()
