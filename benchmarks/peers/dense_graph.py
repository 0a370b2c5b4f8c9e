"""The contribution graph by dense products in this process: every vector that goes from a source through a head to a
target is built, masked ones too, and its distance from the whole is taken."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn.functional import pairwise_distance

from peers.dense import Attention

_LEAST = 1e-5


@dataclass(frozen=True)
class Layer:
    """What is recorded of one layer of one row."""

    attention: Attention
    residual_in: torch.Tensor
    after_attn: torch.Tensor
    ffn_out: torch.Tensor
    residual_out: torch.Tensor

    def edges(self, threshold: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Attention [target source], and its residual, the feed-forward part and its residual [pos]."""
        parts = self.attention.decomposed()
        n_pos, _, n_heads, d_model = parts.shape
        stream = self.residual_in.unsqueeze(1)
        found = _contributions(torch.cat([parts.reshape(n_pos, -1, d_model), stream], dim=1), self.after_attn)
        kept = _renormalized(found, threshold)
        ffn = _contributions(torch.stack([self.ffn_out, self.after_attn], dim=1), self.residual_out)
        kept_ffn = _renormalized(ffn, threshold)
        heads = kept[:, :-1].reshape(n_pos, n_pos, n_heads)
        return heads.sum(dim=-1), kept[:, -1], kept_ffn[:, 0], kept_ffn[:, 1]


def _contributions(parts: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Of parts [pos part d_model] in wholes [pos d_model]."""
    distance = pairwise_distance(parts, whole.unsqueeze(1).expand_as(parts), p=1)
    shares = (whole.abs().sum(dim=-1, keepdim=True) - distance).clamp(min=_LEAST)
    return shares / shares.sum(dim=1, keepdim=True)


def _renormalized(shares: torch.Tensor, threshold: float) -> torch.Tensor:
    kept = shares * (shares > threshold)
    return kept / kept.sum(dim=1, keepdim=True)
