"""The same values by nnsight in this process: a trace of the Hugging Face model, and dense products of what it saved.

`pip install '.[bench]'` installs it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nnsight
import torch
from transformers import GPT2LMHeadModel

from peers.dense import N_HEADS, Attention


class Traced:
    """A saved GPT-2 that nnsight wraps."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        plain = GPT2LMHeadModel.from_pretrained(folder, attn_implementation="eager", trust_remote_code=False)
        plain.to(device).eval()
        self._device = device
        self._model = nnsight.NNsight(plain)
        self.n_layers: int = plain.config.n_layer
        self._w_o = [block.attn.c_proj.weight.detach().unflatten(0, (N_HEADS, -1)) for block in plain.transformer.h]
        self._saved: list[dict[str, torch.Tensor]] = []

    @torch.no_grad()
    def run(self, token_ids: list[list[int]]) -> None:
        """Trace it, and save what a contribution graph is made of, and the logits."""
        blocks, n_layers = self._model.transformer.h, self.n_layers
        with self._model.trace(torch.tensor(token_ids, device=self._device), use_cache=False):
            saved = nnsight.save([])
            for layer in range(n_layers):
                block = blocks[layer]
                before = block.input
                qkv = block.attn.c_attn.output
                attn_out, pattern = block.attn.output
                saved.append((before, qkv, attn_out, pattern, block.mlp.output, block.output))
            logits = nnsight.save(self._model.lm_head.output)
        names = ("residual_in", "qkv", "attn_out", "pattern", "ffn_out", "residual_out")
        self._saved = [dict(zip(names, values, strict=True)) for values in saved]
        self.logits = logits

    @torch.no_grad()
    def layer_tensors(self, layer: int) -> Iterator[torch.Tensor]:
        """What a contribution graph reads of a layer of the only row."""
        saved = self._saved[layer]
        yield saved["residual_in"]
        yield saved["residual_in"] + saved["attn_out"]
        yield saved["residual_out"]
        yield saved["ffn_out"]
        pattern, value = saved["pattern"][0], saved["qkv"][0].chunk(3, dim=-1)[2].unflatten(-1, (N_HEADS, -1))
        yield Attention(pattern, value, self._w_o[layer]).decomposed()
        yield from pattern
