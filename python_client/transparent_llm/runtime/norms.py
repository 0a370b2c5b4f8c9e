"""What a norm divides by: LayerNorm by the deviation from the mean, RMSNorm by the size."""

from __future__ import annotations

import torch
from jaxtyping import Float


def centred(x: Float[torch.Tensor, "*at d_model"], is_centred: bool) -> Float[torch.Tensor, "*at d_model"]:
    """Vectors with their mean taken off, where the norm does that."""
    return x - x.mean(dim=-1, keepdim=True) if is_centred else x


def divisor(x: Float[torch.Tensor, "*at d_model"], eps: float, is_centred: bool) -> Float[torch.Tensor, "*at one"]:
    """What such vectors are divided by."""
    return (centred(x, is_centred).square().mean(dim=-1, keepdim=True) + eps).sqrt()
