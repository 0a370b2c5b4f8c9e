"""The contribution graph of GPT-2 small's shape in this process, beside dense products of recorded values.

Ours reads what it needs from the current run and multiplies it; theirs starts from values that were recorded before.
Both have the 1-norm. Edges are compared once: they are the same.

    cd benchmarks && ../.venv/bin/python -m analysis.contribution_graph [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peers import dense, dense_graph, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.timing import in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm.analysis.contribution_graph import ContributionGraph, contribution_graph
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("higher", 7)
LENGTHS = (30, 100)
THRESHOLD = 0.04
TOLERANCE = 1e-3
"""Theirs has the distances of a thousand masked parts in float32, each with the same error."""


def recorded(llm: TransformerLensTransparentLlm, folder: Path, layer: int) -> dense_graph.Layer:
    """What the dense computation starts from."""
    pattern = torch.stack([llm.attention_matrix(0, layer, head) for head in range(dense.N_HEADS)])
    before = llm.residual_in(layer)[0]
    attention = dense.attention(folder, layer, before, pattern)
    after = (llm.residual_after_attn(layer)[0], llm.ffn_out(layer)[0], llm.residual_out(layer)[0])
    return dense_graph.Layer(attention, before, *after)


def require_same(ours: ContributionGraph, theirs: Sequence[tuple[torch.Tensor, ...]]) -> None:
    found = (ours.attention, ours.attention_residual, ours.ffn, ours.ffn_residual)
    for part, wanted in zip(found, (torch.stack(parts) for parts in zip(*theirs, strict=True)), strict=True):
        torch.testing.assert_close(part, wanted, rtol=0, atol=TOLERANCE)


def row(llm: TransformerLensTransparentLlm, folder: Path, n_tokens: int, pairs: int) -> Figures:
    """Times at one length."""
    progress(f"{n_tokens} tokens ...")
    llm.run_tokens(FreshBatches(1, n_tokens, llm.model_info().d_vocab).next())
    layers = [recorded(llm, folder, layer) for layer in range(llm.model_info().n_layers)]

    def theirs() -> list[tuple[torch.Tensor, ...]]:
        return [layer.edges(THRESHOLD) for layer in layers]

    ours = contribution_graph(llm, threshold=THRESHOLD)
    require_same(ours, theirs())
    actions = {
        "ours": lambda: contribution_graph(llm, threshold=THRESHOLD),
        "ours_l2": lambda: contribution_graph(llm, threshold=THRESHOLD, norm="l2"),
        "dense": theirs,
    }
    timings = in_turn(actions, pairs)
    return {
        "tokens": n_tokens,
        **GOAL.figures(ratio(timings, "dense", "ours")),
        "ratio_l2": round(ratio(timings, "dense", "ours_l2"), 4),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        "pairs": pairs,
        "edges": len(ours.edges()),
        "edge_bytes": ours.attention.nbytes,
    }


def measure(config: GPT2Config, pairs: int) -> list[Figures]:
    with shapes.saved(config) as folder:
        llm = TransformerLensTransparentLlm(str(folder))
        return [row(llm, folder, n_tokens, pairs) for n_tokens in LENGTHS]


def main() -> None:
    quick = is_quick(__doc__)
    rows = measure(shapes.part_of_gpt2_small(6), 5) if quick else measure(shapes.gpt2_small(), 5)
    worse = min(rows, key=lambda row: row["ratio"])
    report(
        "contribution_graph",
        worse,
        quick="2 of the 12 layers, 5 pairs" if quick else None,
        rows=rows,
    )


if __name__ == "__main__":
    main()
