"""The decompositions as two dense products in this process: what one would write without this project."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch.nn.functional import layer_norm

N_HEADS = 12
_EPSILON = 1e-5


@dataclass(frozen=True)
class Attention:
    """Of one layer and one row: what was recorded, and the weights."""

    pattern: torch.Tensor
    """[head target source]"""

    value: torch.Tensor
    """[source head d_head]"""

    w_o: torch.Tensor
    """[head d_head d_model]"""

    def decomposed(self) -> torch.Tensor:
        """[target source head d_model]"""
        weighted = torch.einsum("hts,shd->tshd", self.pattern, self.value)
        return torch.einsum("tshd,hdm->tshm", weighted, self.w_o)


def attention(folder: Path, layer: int, residual_in: torch.Tensor, pattern: torch.Tensor) -> Attention:
    """Of a saved GPT-2, from the stream that enters the layer [pos d_model] and the pattern that it gave, where they
    are."""
    block, place = f"transformer.h.{layer}", str(residual_in.device)
    with safe_open(str(folder / "model.safetensors"), framework="pt", device=place) as file:
        gain, bias = (file.get_tensor(f"{block}.ln_1.{part}") for part in ("weight", "bias"))
        w_qkv, b_qkv, w_o = (
            file.get_tensor(f"{block}.attn.{part}") for part in ("c_attn.weight", "c_attn.bias", "c_proj.weight")
        )
    n_pos, d_model = residual_in.shape
    normed = layer_norm(residual_in, (d_model,), gain, bias, _EPSILON)
    value = (normed @ w_qkv + b_qkv)[:, 2 * d_model :]
    heads = (N_HEADS, d_model // N_HEADS)
    return Attention(pattern, value.reshape(n_pos, *heads).contiguous(), w_o.reshape(*heads, d_model))


def neuron_vectors(folder: Path, layer: int) -> torch.Tensor:
    """W_out of a layer of a saved GPT-2 [d_ffn d_model]."""
    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        rows: torch.Tensor = file.get_tensor(f"transformer.h.{layer}.mlp.c_proj.weight")
    return rows
