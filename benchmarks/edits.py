"""Runs with edits beside plain ones, and a sweep over all heads beside one run a head and TransformerLens' patching.

GPT-2 small's shape, 16 tokens. A run with an edit and the plain one are of the same new tokens. The sweep takes each
head out in turn and measures a logit; run by run, the same client edits, reads that logit and releases. Patching, in
this process on TransformerLens' bridge, puts the clean row's output of each head into the corrupt row; ours is the same
by the client, from a server.

    .venv/bin/python benchmarks/edits.py [--quick]
"""

from __future__ import annotations

import io
import logging
import os
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from typing import Any

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, report
from peers.serving import server_process
from peers.timing import Action, in_turn, median_ms, ratio
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge
from transformers import GPT2Config

from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.analysis.sweeps import Metric, ablation_sweep, patch_sweep
from transparent_llm.interventions import Intervention, add, head, noise, residual_out, unembedding, zero

RUN_GOAL = Goal("lower", 1.1)
ONE_BY_ONE_GOAL = Goal("higher", 6.0)
PATCHING_GOAL = Goal("higher", 1.0)
N_TOKENS, TOKEN = 16, 7
TOLERANCE = 1e-3
METRIC = Metric(TOKEN)


def edits(n_layers: int) -> Mapping[str, Intervention]:
    """In the middle of the model, of all tokens."""
    layer = n_layers // 2
    return {
        "head": zero(head(layer, 1)),
        "steering": add(residual_out(layer), unembedding(TOKEN), 4.0, positions="all"),
        "noise": noise(residual_out(layer), 0.1, 0, positions="all"),
    }


def of_runs(llm: RemoteTransparentLlm, what: str, edit: Intervention, batches: FreshBatches, pairs: int) -> Figures:
    """A run with an edit beside one without."""
    batch = len(batches.next())
    progress(f"runs with an edit: {what}, {batch} rows ...")
    token_ids: list[list[int]] = []

    def renew() -> None:
        token_ids[:] = batches.next()

    actions: dict[str, Action] = {
        "edited": lambda: llm.run_tokens(token_ids, edits=[edit]),
        "plain": lambda: llm.run_tokens(token_ids),
    }
    timings = in_turn(actions, pairs, before=renew)
    return {
        "what": f"a run with one edit ({what})",
        "batch": [batch, N_TOKENS],
        **RUN_GOAL.figures(ratio(timings, "edited", "plain")),
        **_medians(timings),
        "pairs": pairs,
    }


def one_by_one(llm: RemoteTransparentLlm, token_ids: list[list[int]]) -> torch.Tensor:
    """The logit without each head [layer head], each of a run of its own."""
    info, last = llm.model_info(), N_TOKENS - 1
    wanted = ("logits", {"pos": slice(last, last + 1), "d_vocab": slice(TOKEN, TOKEN + 1)})
    values = torch.empty(info.n_layers, info.n_heads)
    for layer in range(info.n_layers):
        for number in range(info.n_heads):
            llm.run_tokens(token_ids, edits=[zero(head(layer, number))])
            values[layer, number] = llm.fetch([wanted])[0].item()
            llm.release()
    return values


def of_sweep(llm: RemoteTransparentLlm, batches: FreshBatches, pairs: int) -> Figures:
    """A sweep over all heads beside one run a head."""
    progress("a sweep beside one run a head ...")
    info, alone = llm.model_info(), llm.copy()
    token_ids: list[list[int]] = []
    found: dict[str, torch.Tensor] = {}

    def renew() -> None:
        token_ids[:] = batches.next()
        llm.run_tokens(token_ids)

    def keep(name: str, make: Callable[[], torch.Tensor]) -> Action:
        return lambda: found.update({name: make()})

    actions = {
        "sweep": keep("sweep", lambda: ablation_sweep(llm, "head", METRIC, progress=False)["value"]),
        "one_by_one": keep("one_by_one", lambda: one_by_one(alone, token_ids)),
    }
    timings = in_turn(actions, pairs, before=renew)
    torch.testing.assert_close(found["sweep"].float(), found["one_by_one"], rtol=0, atol=TOLERANCE)
    return {
        "what": f"a sweep over {info.n_layers * info.n_heads} heads, beside one run each",
        "tokens": N_TOKENS,
        **ONE_BY_ONE_GOAL.figures(ratio(timings, "one_by_one", "sweep")),
        **_medians(timings),
        "pairs": pairs,
    }


def of_patching(llm: RemoteTransparentLlm, bridge: TransformerBridge, batches: FreshBatches, pairs: int) -> Figures:
    """Patching all heads beside TransformerLens in this process."""
    progress("a sweep beside TransformerLens' patching ...")
    info, clean = llm.model_info(), llm.copy()
    rows: list[list[int]] = []
    found: dict[str, torch.Tensor] = {}

    def renew() -> None:
        rows[:] = [*batches.next(), *batches.next()]

    def ours() -> None:
        clean.run_tokens(rows[:1])
        llm.run_tokens(rows[1:])
        found["ours"] = patch_sweep(clean, llm, "head", METRIC, progress=False)["value"]

    @torch.no_grad()
    def theirs() -> None:
        given = [torch.tensor([row], device=device.chosen()) for row in rows]
        _, cache = bridge.run_with_cache(given[0])
        with redirect_stderr(io.StringIO()):  # its bar
            found["transformer_lens"] = patching.get_act_patch_attn_head_out_all_pos(
                bridge, given[1], cache, lambda logits: logits[0, -1, TOKEN]
            )

    timings = in_turn({"ours": ours, "transformer_lens": theirs}, pairs, before=renew)
    torch.testing.assert_close(found["ours"].float(), found["transformer_lens"].float().cpu(), rtol=0, atol=TOLERANCE)
    return {
        "what": f"patching {info.n_layers * info.n_heads} heads, beside TransformerLens in process",
        "tokens": N_TOKENS,
        **PATCHING_GOAL.figures(ratio(timings, "transformer_lens", "ours")),
        **_medians(timings),
        "pairs": pairs,
    }


def _medians(timings: Mapping[str, list[float]]) -> Figures:
    return {f"{name}_ms": median_ms(dict(timings), name) for name in timings}


def measure(config: GPT2Config, pairs: int, sweeps: int) -> list[Figures]:
    os.environ["OMP_NUM_THREADS"] = str(torch.get_num_threads())  # for the server
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address, cache_bytes=0) as llm,
    ):
        bridge: Any = TransformerBridge.boot_transformers(
            str(folder), device=str(device.chosen()), dtype=torch.float32, trust_remote_code=False
        )
        one, eight = (FreshBatches(n_rows, N_TOKENS, config.vocab_size) for n_rows in (1, 8))
        rows = [of_runs(llm, what, edit, one, pairs) for what, edit in edits(config.n_layer).items()]
        rows.append(of_runs(llm, "head", edits(config.n_layer)["head"], eight, pairs))
        return [*rows, of_sweep(llm, one, sweeps), of_patching(llm, bridge, one, sweeps)]


def main() -> None:
    quick = is_quick(__doc__)
    logging.getLogger("transformer_lens").setLevel(logging.ERROR)
    part = shapes.part_of_gpt2_small(4)
    rows = measure(part, 7, 3) if quick else measure(shapes.gpt2_small(), 25, 5)
    headline = max(rows[:-2], key=lambda row: row["ratio"])
    told = "3 of the 12 layers, a quarter of the vocabulary, 7 and 3 pairs" if quick else None
    report("edits", headline, quick=told, rows=rows)


if __name__ == "__main__":
    main()
