"""What a run takes of the server's store, and how far the server's memory grows while it streams gigabytes.

The state of a run of 1 x 128 tokens of GPT-2 small's shape stands beside what TransformerLens 2.x caches of it. What is
streamed is `decomposed_attn` of 256 tokens, dense: 2.4 GB that are never built whole; a shorter one goes before, to
warm up. The worst of several streams counts. Linux only.

    .venv/bin/python benchmarks/memory.py [--quick]
"""

from __future__ import annotations

from pathlib import Path

import grpc
from peers import shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.processes import only_child
from peers.raw import RawStream
from peers.serving import server_process

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.network.proxies import Route

STATE_GOAL = Goal("lower", 0.4)
GROWTH_GOAL = Goal("lower", 64.0)
CACHE_MB = 127.8
"""Of TransformerLens 2.x: `run_with_cache` of the same run."""

STATE_TOKENS, WARM_UP_TOKENS, STREAM_TOKENS = 128, 64, 256
MB = 1e6


def state_mb(llm: RemoteTransparentLlm, token_ids: list[list[int]]) -> float:
    """What the server's store grows by."""
    before = llm.server_info().stored_run_bytes
    llm.run_tokens(token_ids)
    return (llm.server_info().stored_run_bytes - before) / MB


def status_mb(pid: int, field: str) -> float:
    """A line of the process's status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024 / MB


def reset_peak(pid: int) -> None:
    """From now on the peak is that of what follows."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def growth_mb(pid: int, stream: RawStream, layer: int) -> tuple[int, float]:
    """Bytes that were streamed, and by how much the process was larger at its peak than before."""
    reset_peak(pid)
    before = status_mb(pid, "VmRSS")
    received = sum(stream.decomposed_attn(0, layer))
    return received, status_mb(pid, "VmHWM") - before


def measure(streams: int) -> Figures:
    config = shapes.gpt2_small()
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as llm,
        grpc.insecure_channel(address, Route(address).options) as channel,
    ):
        pid, stream = only_child(), RawStream(channel)
        stored = state_mb(llm, FreshBatches(1, STATE_TOKENS, config.vocab_size).next())
        stream.run(FreshBatches(1, WARM_UP_TOKENS, config.vocab_size).next())
        growth_mb(pid, stream, 0)
        stream.run(FreshBatches(1, STREAM_TOKENS, config.vocab_size).next())
        progress("streaming ...")
        grown = [growth_mb(pid, stream, layer) for layer in range(streams)]
    growth = max(growth for _, growth in grown)
    return {
        **STATE_GOAL.figures(stored / CACHE_MB, and_also=GROWTH_GOAL.met(growth)),
        "state_mb": round(stored, 2),
        "cache_mb": CACHE_MB,
        "streamed_mb": round(grown[0][0] / MB, 1),
        "growth_mb": round(growth, 1),
        "growth_target_mb": GROWTH_GOAL.target,
        "each_growth_mb": [round(growth, 1) for _, growth in grown],
    }


def main() -> None:
    quick = is_quick(__doc__)
    report("memory", measure(1 if quick else 7), quick="one stream" if quick else None)


if __name__ == "__main__":
    main()
