"""`decomposed_ffn_out` of one position of GPT-2 small's shape over the wire, beside the dense product in this process.

Each call asks for another position, and nothing is read ahead; the output vectors of neurons are kept, as by default.
Bytes are counted apart, through a relay, frames and flow control included.

    .venv/bin/python benchmarks/decomposed_ffn.py [--quick]
"""

from __future__ import annotations

from itertools import count
from pathlib import Path

import torch
from peers import dense, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.relay import counting_relay
from peers.serving import server_process
from peers.timing import Timings, in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, connect

GOAL = Goal("lower", 1.0)
MOST_BYTES = 65_536
LAYER, N_TOKENS = 1, 1024
FOLLOWING = 10


def wire_bytes(address: str, token_ids: list[list[int]]) -> tuple[int, list[int]]:
    """Of the first call of a layer, and of some that follow it."""
    with counting_relay(address) as relay, connect(relay.address, read_ahead_bytes=0) as llm:
        llm.run_tokens(token_ids)
        llm.decomposed_ffn_out(0, 0, 0)  # another layer: what the very first call asks beside it is no part of this
        positions = iter(range(FOLLOWING + 1))

        def call() -> int:
            return relay.bytes_of(lambda: llm.decomposed_ffn_out(0, LAYER, next(positions)))

        return call(), [call() for _ in range(FOLLOWING)]


def times(llm: RemoteTransparentLlm, folder: Path, pairs: int, reads: int) -> Timings:
    """Of calls for one position after another, and of the product for one."""
    rows = dense.neuron_vectors(folder, LAYER)
    activations = llm.neuron_activations(0, LAYER, 0)
    assert torch.equal(llm.decomposed_ffn_out(0, LAYER, 0), activations[:, None] * rows)
    positions = count(1)
    actions = {
        "ours": lambda: llm.decomposed_ffn_out(0, LAYER, next(positions)),
        "dense": lambda: activations[:, None] * rows,
    }
    return in_turn(actions, pairs, times=reads)


def measure(config: GPT2Config, pairs: int, reads: int) -> Figures:
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address, read_ahead_bytes=0) as llm,
    ):
        progress("running ...")
        token_ids = FreshBatches(1, N_TOKENS, llm.model_info().d_vocab).next()
        llm.run_tokens(token_ids)
        timings = times(llm, folder, pairs, reads)
        first, following = wire_bytes(address, token_ids)
    return {
        **GOAL.figures(max(following) / MOST_BYTES),
        "first_wire_bytes": first,
        "following_wire_bytes": max(following),
        "following_calls": len(following),
        "most_bytes": MOST_BYTES,
        **ratio_figures(ratio(timings, "dense", "ours"), "dense_over_ours"),
        "ours_ms": median_ms(timings, "ours"),
        "dense_ms": median_ms(timings, "dense"),
        "pairs": pairs,
        "reads_per_pair": reads,
    }


def main() -> None:
    quick = is_quick(__doc__)
    if quick:
        figures = measure(shapes.part_of_gpt2_small(6), pairs=7, reads=20)
    else:
        figures = measure(shapes.gpt2_small(), pairs=15, reads=50)
    report("decomposed_ffn", figures, quick="2 of the 12 layers, 20 reads a pair" if quick else None)


if __name__ == "__main__":
    main()
