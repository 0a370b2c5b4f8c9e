"""Sparse autoencoders by their definitions, in float64, from the tensors of their files."""

from __future__ import annotations

from collections.abc import Mapping

import torch


def encoded(x: torch.Tensor, architecture: str, weights: Mapping[str, torch.Tensor], *, k: int = 3) -> torch.Tensor:
    """Activations [n d_sae] of values [n d_in], as the papers and SAELens define them."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    x = x.double() if "transcoder" in architecture else x.double() - w["b_dec"]
    if architecture == "gated":
        is_open = x @ w["W_enc"] + w["b_gate"] > 0
        return is_open * (x @ (w["W_enc"] * w["r_mag"].exp()) + w["b_mag"]).clamp(min=0)
    hidden = x @ w["W_enc"] + w["b_enc"]
    if architecture == "topk":
        kth = hidden.sort(dim=1, descending=True).values[:, k - 1 : k]
        return hidden.clamp(min=0) * (hidden >= kth)
    if architecture == "batchtopk":
        return hidden.clamp(min=0) * (hidden > w["topk_threshold"])
    if architecture.startswith("jumprelu"):
        threshold = w["threshold"] if "threshold" in w else w["log_threshold"].exp()
        return hidden.clamp(min=0) * (hidden > threshold)
    return hidden.clamp(min=0)


def decoded(activations: torch.Tensor, x: torch.Tensor, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """What they stand for [n d_out]."""
    w = {name: tensor.double() for name, tensor in weights.items()}
    skipped = x.double() @ w["W_skip"].T if "W_skip" in w else 0
    return activations @ w["W_dec"] + w["b_dec"] + skipped
