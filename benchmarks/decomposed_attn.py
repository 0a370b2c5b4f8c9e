"""`decomposed_attn` of GPT-2 small's shape over the wire, beside two dense einsums in this process.

Nothing is kept: each call is a call. Bytes are counted apart, through a relay, frames and flow control included.

    .venv/bin/python benchmarks/decomposed_attn.py [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peers import dense, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.relay import counting_relay
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, connect

TIME_GOAL = Goal("higher", 1.8)
BYTES_GOAL = Goal("higher", 50)
TARGET_TOKENS = 128
LAYER = 1
TOLERANCE = 1e-5


def recorded(llm: RemoteTransparentLlm, folder: Path) -> dense.Attention:
    """What the dense computation starts from, proven to give what the server gives."""
    pattern = torch.stack([llm.attention_matrix(0, LAYER, head) for head in range(dense.N_HEADS)])
    attention = dense.attention(folder, LAYER, llm.residual_in(LAYER)[0], pattern)
    ours, wanted = llm.decomposed_attn(0, LAYER)[-1], attention.decomposed()[-1]
    torch.testing.assert_close(ours, wanted, rtol=TOLERANCE, atol=TOLERANCE)
    return attention


def wire_bytes(address: str, token_ids: list[list[int]]) -> int:
    """Of one call and its answer."""
    with counting_relay(address) as relay, connect(relay.address, cache_bytes=0) as llm:
        llm.run_tokens(token_ids)
        llm.decomposed_attn(0, 0)  # what a first call asks beside it is no part of the value
        return relay.bytes_of(lambda: llm.decomposed_attn(0, LAYER))


def row(address: str, folder: Path, n_tokens: int, pairs: int) -> Figures:
    """Times and bytes at one length."""
    progress(f"{n_tokens} tokens ...")
    with connect(address, cache_bytes=0) as llm:
        token_ids = FreshBatches(1, n_tokens, llm.model_info().d_vocab).next()
        llm.run_tokens(token_ids)
        attention = recorded(llm, folder)
        actions = {"ours": lambda: llm.decomposed_attn(0, LAYER), "dense": attention.decomposed}
        timings = in_turn(actions, pairs)
        dense_bytes = llm.decomposed_attn(0, LAYER).nbytes
    sent = wire_bytes(address, token_ids)
    fewer = dense_bytes / sent
    return {
        "tokens": n_tokens,
        **TIME_GOAL.figures(ratio(timings, "dense", "ours"), and_also=BYTES_GOAL.met(fewer)),
        "ours_ms": median_ms(timings, "ours"),
        "dense_ms": median_ms(timings, "dense"),
        "pairs": pairs,
        "dense_bytes": dense_bytes,
        "wire_bytes": sent,
        "dense_over_wire": round(fewer, 1),
        "dense_over_wire_target": BYTES_GOAL.target,
    }


def measure(config: GPT2Config, lengths: Sequence[int], pairs: int) -> list[Figures]:
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
    ):
        return [row(address, folder, n_tokens, pairs) for n_tokens in lengths]


def main() -> None:
    quick = is_quick(__doc__)
    if quick:
        rows = measure(shapes.part_of_gpt2_small(6), (64, TARGET_TOKENS), 7)
    else:
        rows = measure(shapes.gpt2_small(), (64, TARGET_TOKENS, 256), 15)
    headline = next(row for row in rows if row["tokens"] == TARGET_TOKENS)
    report(
        "decomposed_attn",
        headline,
        quick="2 of the 12 layers, no row of 256 tokens, 7 pairs" if quick else None,
        rows=rows,
    )


if __name__ == "__main__":
    main()
