"""The contribution graph of GPT-2 small's shape, in this process and asked of a server, beside dense products.

Ours reads what it needs from the current run and multiplies it; theirs starts from values that were recorded before, in
this process. Both have the 1-norm. Edges are compared once: they are the same. The peak is that of this process while
it computes the contributions of all sources and heads of one layer, on the CPU. Linux only.

    cd benchmarks && ../.venv/bin/python -m analysis.contribution_graph [--quick]
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from memory import MB, reset_peak, status_mb
from peers import dense, dense_graph, device, shapes, wire_bytes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.serving import server_process
from peers.timing import in_turn, median_ms, ratio
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.analysis.contribution_graph import ContributionGraph, contribution_graph
from transparent_llm.analysis.contributions import attn_contributions
from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("higher", 7)
LENGTHS = (30, 100)
PEAK_TOKENS = 512
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
        torch.testing.assert_close(part.cpu(), wanted.cpu(), rtol=0, atol=TOLERANCE)


def row(
    remote: RemoteTransparentLlm,
    address: str,
    llm: TransformerLensTransparentLlm,
    folder: Path,
    n_tokens: int,
    pairs: int,
) -> Figures:
    """Times at one length."""
    progress(f"{n_tokens} tokens ...")
    tokens = FreshBatches(1, n_tokens, llm.model_info().d_vocab).next()
    for each in (llm, remote):
        each.run_tokens(tokens)
    layers = [recorded(llm, folder, layer) for layer in range(llm.model_info().n_layers)]

    def theirs() -> list[tuple[torch.Tensor, ...]]:
        return [layer.edges(THRESHOLD) for layer in layers]

    ours = contribution_graph(llm, threshold=THRESHOLD)
    require_same(ours, theirs())
    require_same(contribution_graph(remote, threshold=THRESHOLD), theirs())
    actions = {
        "ours": lambda: contribution_graph(llm, threshold=THRESHOLD),
        "ours_remote": lambda: contribution_graph(remote, threshold=THRESHOLD),
        "ours_l2": lambda: contribution_graph(llm, threshold=THRESHOLD, norm="l2"),
        "dense": theirs,
    }
    timings = in_turn(actions, pairs)
    return {
        "tokens": n_tokens,
        **GOAL.figures(ratio(timings, "dense", "ours")),
        "ratio_remote": round(ratio(timings, "dense", "ours_remote"), 4),
        "ratio_l2": round(ratio(timings, "dense", "ours_l2"), 4),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        "pairs": pairs,
        "edges": len(ours.edges()),
        "edge_bytes": ours.attention.nbytes,
        "all_bytes": wire_bytes.of_fetch(address, remote.run_id(), reads(llm)),
    }


def reads(llm: TransformerLensTransparentLlm) -> list[tuple[Any, ...]]:
    """What the graph asks of a server."""
    return [("contribution_edges", 0, layer, THRESHOLD, True, "l1") for layer in range(llm.model_info().n_layers)]


def peak(llm: TransformerLensTransparentLlm) -> Figures:
    """How much larger this process is at its peak than before, what is kept counted in."""
    progress(f"{PEAK_TOKENS} tokens ...")
    info = llm.model_info()
    llm.run_tokens(FreshBatches(1, PEAK_TOKENS, info.d_vocab).next())
    reset_peak(pid := os.getpid())
    before = status_mb(pid, "VmRSS")
    heads, residual = attn_contributions(llm, 0, 0)
    grown = status_mb(pid, "VmHWM") - before
    dense_bytes = heads.nbytes * info.d_model
    return {
        "peak_tokens": PEAK_TOKENS,
        "peak_mb": round(grown, 1),
        "peak_kept_mb": round((heads.nbytes + residual.nbytes) / MB, 1),
        "peak_dense_mb": round(dense_bytes / MB, 1),
    }


def measure(config: GPT2Config, pairs: int) -> tuple[list[Figures], Figures]:
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the server
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address, cache_bytes=0) as remote,
    ):
        llm = TransformerLensTransparentLlm(str(folder), device=str(device.chosen()))
        rows = [row(remote, address, llm, folder, n_tokens, pairs) for n_tokens in LENGTHS]
        return rows, {} if device.is_gpu() else peak(llm)


def main() -> None:
    quick = is_quick(__doc__)
    rows, at_peak = measure(shapes.part_of_gpt2_small(6) if quick else shapes.gpt2_small(), 5)
    worse = min(rows, key=lambda row: row["ratio"])
    report(
        "contribution_graph",
        worse | at_peak,
        quick="2 of the 12 layers, 5 pairs" if quick else None,
        rows=rows,
    )


if __name__ == "__main__":
    main()
