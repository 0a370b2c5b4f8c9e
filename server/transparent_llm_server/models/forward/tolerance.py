"""How far one way to compute a tensor may be from another one."""

from __future__ import annotations

import torch

RELATIVE_TOLERANCE = {torch.float64: 5e-5, torch.float32: 5e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""Of the largest value compared."""

SMALLEST_SCALE = 1e-3
"""Where all values are smaller still, for example a branch of zeros, this stands for the largest."""


def allowed_error(wanted: torch.Tensor, dtype: torch.dtype) -> float:
    """The largest difference from these values in a model of this type."""
    return RELATIVE_TOLERANCE[dtype] * max(SMALLEST_SCALE, wanted.float().abs().max().item())


def largest_error(got: torch.Tensor, wanted: torch.Tensor) -> float:
    """The largest difference, wherever the two lie."""
    return (got.float() - wanted.to(got.device).float()).abs().max().item()
