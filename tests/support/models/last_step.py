"""The last step of a plain Hugging Face model in float64, part by part, as the words of the definition have it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from support.models.reference import layout_of


class LastStepReference:
    """What a part of the residual stream gives the logit of a token, where `residual` is the whole stream there."""

    def __init__(self, model: PreTrainedModel) -> None:
        config: Any = model.config
        norm: Any = model.get_submodule(layout_of(config).final_norm)
        self._is_layer_norm = "LayerNorm" in type(norm).__name__
        self._eps = float(norm.eps if hasattr(norm, "eps") else norm.variance_epsilon)
        self._weight = norm.weight.double() + (1.0 if config.model_type.startswith("gemma") else 0.0)
        self._bias = None if getattr(norm, "bias", None) is None else norm.bias.double()
        self._unembedding: Any = model.get_output_embeddings()
        scales = {"granite": lambda: 1 / config.logits_scaling, "cohere": lambda: config.logit_scale}
        self._logit_scale = float(scales.get(config.model_type, lambda: 1.0)())
        self.cap: float | None = getattr(config, "final_logit_softcapping", None)

    def row(self, token: int) -> Tensor:
        """Of the unembedding."""
        weight: Tensor = self._unembedding.weight[token].double()
        return weight * self._logit_scale

    def scale(self, residual: Tensor) -> float:
        x = residual.double()
        x = x - x.mean() if self._is_layer_norm else x
        return float((x.square().mean() + self._eps).sqrt())

    def terms(self, parts: Tensor, residual: Tensor, token: int) -> Tensor:
        """Of parts [.. d_model]."""
        c = parts.double()
        c = c - c.mean(dim=-1, keepdim=True) if self._is_layer_norm else c
        return (c / self.scale(residual) * self._weight * self.row(token)).sum(dim=-1)

    def norm_bias(self, token: int) -> float:
        return 0.0 if self._bias is None else float(self._bias @ self.row(token))

    def unembed_bias(self, token: int) -> float:
        bias = getattr(self._unembedding, "bias", None)
        return 0.0 if bias is None else float(bias[token]) * self._logit_scale

    def output(self, logit: float) -> float:
        """What the model makes of a logit."""
        return logit if self.cap is None else float(torch.tensor(logit / self.cap).tanh()) * self.cap
