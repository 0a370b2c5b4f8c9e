"""`run_tokens` over the wire, beside a plain Hugging Face forward pass of the same model in this process.

GPT-2 small's shape, eager attention, new token ids each time. The run also records what is read later, but leaves the
logits to whoever asks for them; so it stands beside a pass without the unembedding too.

    .venv/bin/python benchmarks/run.py [--quick]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.serving import server_process
from peers.spread import Median
from peers.timing import Action, in_turn, median_ms, ratio
from transformers import GPT2Config, GPT2LMHeadModel

from transparent_llm import RemoteTransparentLlm, connect

GOAL = Goal("lower", 1.10)
SHORT_GOAL_MS = Goal("lower", 3.0)
"""Of a prompt of `SHORT` tokens: what the wire and the capture may take beside the pass without the unembedding."""

SHORT, LONG = 16, 128


def row(llm: RemoteTransparentLlm, plain: Any, n_rows: int, n_tokens: int, pairs: int) -> Figures:
    """Times of one batch size."""
    progress(f"{n_rows} x {n_tokens} tokens ...")
    batches = FreshBatches(n_rows, n_tokens, plain.config.vocab_size)
    token_ids: list[list[int]] = []

    @torch.no_grad()
    def forward(model: Any) -> object:
        return model(torch.tensor(token_ids, device=device.chosen()), use_cache=False)

    def renew() -> None:
        token_ids[:] = batches.next()

    actions: dict[str, Action] = {
        "ours": lambda: llm.run_tokens(token_ids),
        "huggingface": lambda: forward(plain),
        "without_unembedding": lambda: forward(plain.transformer),
    }
    timings = in_turn(actions, pairs, before=renew)
    beside = Median.of(1e3 * (a - b) for a, b in zip(timings["ours"], timings["without_unembedding"], strict=True))
    return {
        "batch": [n_rows, n_tokens],
        **GOAL.figures(ratio(timings, "ours", "huggingface"), and_also=n_tokens > SHORT or SHORT_GOAL_MS.met(beside)),
        **ratio_figures(beside, "ms_beside_without_unembedding"),
        **ratio_figures(ratio(timings, "ours", "without_unembedding"), "ratio_without_unembedding"),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        "pairs": pairs,
    }


def measure(config: GPT2Config, shapes_of: Sequence[tuple[int, int, int]]) -> list[Figures]:
    """For each (rows, tokens, pairs)."""
    with (
        shapes.saved(config) as folder,
        server_process("--model", f"gpt2={folder}") as address,
        connect(address) as llm,
    ):
        plain = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
        plain.to(device.chosen()).eval()
        return [row(llm, plain, *shape) for shape in shapes_of]


def main() -> None:
    quick = is_quick(__doc__)
    if quick:
        rows = measure(shapes.part_of_gpt2_small(6), [(1, SHORT, 7), (1, LONG, 7), (8, LONG, 7)])
    else:
        rows = measure(shapes.gpt2_small(), [(1, SHORT, 25), (1, LONG, 25), (8, LONG, 11)])
    worse = max(rows, key=lambda row: row["ratio"])
    report("run", worse, quick="2 of the 12 layers, a sixth of the vocabulary" if quick else None, rows=rows)


if __name__ == "__main__":
    main()
