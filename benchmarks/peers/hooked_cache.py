"""GPT-2 as the tools have it that this class comes from: weights of one head each, every value that has a name cached
while the model runs, and dense products of what is cached at each call. Their arithmetic, not their code."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.nn.functional import gelu

from peers.dense import N_HEADS, Attention

_EPSILON = 1e-5


class HookedCache:
    """A saved GPT-2 in this process."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._device = device
        self._weights = load_file(folder / "model.safetensors", device=str(device))
        self.n_layers = 1 + max(int(name.split(".")[2]) for name in self._weights if ".h." in name)
        self._layers = [self._by_head(layer) for layer in range(self.n_layers)]
        self.cache: dict[str, torch.Tensor] = {}

    @torch.no_grad()
    def run(self, token_ids: list[list[int]]) -> None:
        """Fill the cache."""
        tokens, self.cache = torch.tensor(token_ids, device=self._device), {}
        embed = self._keep("embed", self._weights["transformer.wte.weight"][tokens])
        positions = self._keep("pos_embed", self._weights["transformer.wpe.weight"][: tokens.shape[1]].expand_as(embed))
        stream = embed + positions
        for layer in range(self.n_layers):
            stream = self._layer(layer, stream)
        final = self._norm("ln_final", "transformer.ln_f", stream)
        self._keep("logits", final @ self._weights["transformer.wte.weight"].T)

    def layer_tensors(self, layer: int) -> Iterator[torch.Tensor]:
        """What a contribution graph reads of a layer of the only row."""
        for name in ("resid_pre", "resid_mid", "resid_post", "mlp_out"):
            yield self.cache[f"{layer}.{name}"]
        pattern, value = self.cache[f"{layer}.pattern"][0], self.cache[f"{layer}.v"][0]
        yield Attention(pattern, value, self._layers[layer]["W_O"]).decomposed()
        yield from pattern

    def _layer(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        before = self._keep(f"{layer}.resid_pre", stream)
        middle = self._keep(f"{layer}.resid_mid", before + self._attention(layer, before))
        return self._keep(f"{layer}.resid_post", middle + self._feed_forward(layer, middle))

    def _attention(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        weights = self._layers[layer]
        normed = self._norm(f"{layer}.ln1", f"transformer.h.{layer}.ln_1", stream)
        q, k, v = (
            self._keep(
                f"{layer}.{name.lower()}",
                torch.einsum("bpd,hde->bphe", normed, weights[f"W_{name}"]) + weights[f"b_{name}"],
            )
            for name in "QKV"
        )
        n_pos = stream.shape[1]
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(q.shape[-1])
        future = torch.ones(n_pos, n_pos, dtype=torch.bool, device=self._device).triu(1)
        scores = self._keep(f"{layer}.attn_scores", scores.masked_fill(future, -torch.inf))
        pattern = self._keep(f"{layer}.pattern", scores.softmax(dim=-1))
        z = self._keep(f"{layer}.z", torch.einsum("bkhe,bhqk->bqhe", v, pattern))
        return self._keep(f"{layer}.attn_out", torch.einsum("bqhe,hed->bqd", z, weights["W_O"]) + weights["b_O"])

    def _feed_forward(self, layer: int, stream: torch.Tensor) -> torch.Tensor:
        block = f"transformer.h.{layer}"
        normed = self._norm(f"{layer}.ln2", f"{block}.ln_2", stream)
        pre = self._keep(f"{layer}.pre", self._affine(f"{block}.mlp.c_fc", normed))
        post = self._keep(f"{layer}.post", gelu(pre, approximate="tanh"))
        return self._keep(f"{layer}.mlp_out", self._affine(f"{block}.mlp.c_proj", post))

    def _norm(self, name: str, of: str, stream: torch.Tensor) -> torch.Tensor:
        centred = stream - stream.mean(dim=-1, keepdim=True)
        scale = self._keep(f"{name}.scale", (centred.pow(2).mean(dim=-1, keepdim=True) + _EPSILON).sqrt())
        gain, bias = (self._weights[f"{of}.{part}"] for part in ("weight", "bias"))
        return self._keep(f"{name}.normalized", centred / scale * gain + bias)

    def _affine(self, name: str, stream: torch.Tensor) -> torch.Tensor:
        return stream @ self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]

    def _keep(self, name: str, value: torch.Tensor) -> torch.Tensor:
        self.cache[name] = value
        return value

    def _by_head(self, layer: int) -> dict[str, torch.Tensor]:
        """W_Q, W_K, W_V [head d_model d_head], W_O [head d_head d_model], and biases."""
        block = f"transformer.h.{layer}.attn"
        fused, bias = self._weights[f"{block}.c_attn.weight"], self._weights[f"{block}.c_attn.bias"]
        d_model = fused.shape[0]
        by_head = {}
        for name, matrix, vector in zip("QKV", fused.chunk(3, dim=1), bias.chunk(3), strict=True):
            by_head[f"W_{name}"] = matrix.reshape(d_model, N_HEADS, -1).transpose(0, 1).contiguous()
            by_head[f"b_{name}"] = vector.reshape(N_HEADS, -1)
        by_head["W_O"] = self._weights[f"{block}.c_proj.weight"].reshape(N_HEADS, -1, d_model)
        by_head["b_O"] = self._weights[f"{block}.c_proj.bias"]
        return by_head
