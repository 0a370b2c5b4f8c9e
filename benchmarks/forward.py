"""A forward pass that keeps what all values need, beside the plain Hugging Face body of the same model in this process.

GPT-2 small's shape, eager attention, new token ids each time; both compute the blocks and no logits. Beside them is a
whole `run_tokens`, with its checks. On a GPU (`--device cuda`) there is one more row, 8 x 512 tokens of Llama 3.2 1B's
shape in bfloat16; each pass is waited for.

    .venv/bin/python benchmarks/forward.py [--quick]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from peers import device, shapes
from peers.batches import FreshBatches
from peers.outcome import Figures, Goal, is_quick, progress, ratio_figures, report
from peers.timing import Action, in_turn, median_ms, ratio
from transformers import AutoModelForCausalLM, GPT2Config, PreTrainedConfig

from transparent_llm_server import TransformerLensTransparentLlm

GOAL = Goal("lower", 1.05)
BATCHES = ((1, 16), (1, 64), (1, 128), (8, 128))
ON_A_GPU = (8, 512)
AT_ONCE = 256
"""Tokens that passes of one turn add up to, at least; the median pass of a turn counts."""


@dataclass(frozen=True)
class Both:
    """One model twice."""

    name: str
    ours: TransformerLensTransparentLlm
    plain: Any

    def captured(self, tokens: torch.Tensor) -> Any:
        """Through our engine."""
        return self.ours.bridged.forward(tokens, torch.ones_like(tokens, dtype=torch.bool))

    def body(self, tokens: torch.Tensor, **more: bool) -> Any:
        """Through Hugging Face's model below its unembedding, which gets a mask as ours does."""
        placed = tokens.to(device.chosen())
        with torch.no_grad():
            return self.plain.base_model(placed, attention_mask=torch.ones_like(placed), use_cache=False, **more)

    def require_same(self, tokens: torch.Tensor) -> None:
        """The stream before each layer."""
        states = self.body(tokens, output_hidden_states=True).hidden_states
        for layer, wanted in zip(self.captured(tokens).layers, states, strict=False):  # the last is behind a norm
            torch.testing.assert_close(layer.residual_in, wanted)


def loaded(name: str, config: PreTrainedConfig) -> Both:
    """Both of the same files, on the device."""
    progress(f"loading {name} ...")
    dtype = config.dtype or torch.float32
    with shapes.saved(config) as folder:
        plain = AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation="eager", dtype=dtype, trust_remote_code=False
        )
        ours = TransformerLensTransparentLlm(str(folder), device=str(device.chosen()), dtype=dtype)
    return Both(name, ours, plain.to(device.chosen()).eval())


def row(both: Both, n_rows: int, n_tokens: int, pairs: int) -> Figures:
    """Times of one batch size."""
    progress(f"{both.name}, {n_rows} x {n_tokens} tokens ...")
    batches = FreshBatches(n_rows, n_tokens, both.plain.config.vocab_size)
    token_ids: list[list[int]] = []
    tokens = torch.empty(n_rows, n_tokens, dtype=torch.int64)

    def renew() -> None:
        token_ids[:] = batches.next()
        tokens.copy_(torch.tensor(token_ids))

    renew()
    both.require_same(tokens)
    actions: dict[str, Action] = {
        "captured": lambda: both.captured(tokens),
        "plain": lambda: both.body(tokens),
        "run_tokens": lambda: both.ours.run_tokens(token_ids),
    }
    timings = in_turn(actions, pairs, times=math.ceil(AT_ONCE / (n_rows * n_tokens)), before=renew)
    return {
        "what": both.name,
        "batch": [n_rows, n_tokens],
        **GOAL.figures(ratio(timings, "captured", "plain")),
        **ratio_figures(ratio(timings, "run_tokens", "plain"), "run_tokens_over_plain"),
        **{f"{name}_ms": median_ms(timings, name) for name in timings},
        "engine": both.ours.describe().engine,
        "pairs": pairs,
    }


def measure(
    config: GPT2Config, n_layers_on_a_gpu: int, pairs: int, batches: Sequence[tuple[int, int]]
) -> list[Figures]:
    both = loaded("GPT-2 small", config)
    rows = [row(both, *batch, pairs) for batch in batches]
    if device.is_gpu():
        rows.append(row(loaded("1B in bfloat16", shapes.llama_1b(n_layers_on_a_gpu)), *ON_A_GPU, pairs))
    return rows


def main() -> None:
    quick = is_quick(__doc__)
    rows = measure(GPT2Config(n_layer=4), 4, 11, BATCHES) if quick else measure(shapes.gpt2_small(), 16, 25, BATCHES)
    worse = max(rows, key=lambda row: row["ratio"])
    report("forward", worse, quick="4 layers of each model, 11 pairs" if quick else None, rows=rows)


if __name__ == "__main__":
    main()
