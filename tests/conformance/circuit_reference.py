"""Weights of heads of a plain GPT-2, and scores of them by their definitions in float64."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

Parts = dict[str, Tensor]


class CircuitReference:
    """From the state dict alone."""

    def __init__(self, model: PreTrainedModel) -> None:
        self._state = model.state_dict()
        self._n_layers, self._n_heads = model.config.n_layer, model.config.n_head
        self._d_model = model.config.n_embd

    def parts(self, method: str, given: list[Any]) -> Parts:
        """The tensors of a read, by the names of its parts; under the method's own where it is one."""
        answer: Callable[..., Tensor | Parts] = getattr(self, f"_{method}")
        found = answer(*given)
        return {method: found} if isinstance(found, Tensor) else found

    def _head_weights(self, layer: int, head: int) -> Parts:
        name, d_head = f"transformer.h.{layer % self._n_layers}.attn", self._d_model // self._n_heads
        part = slice(head * d_head, (head + 1) * d_head)
        q, k, v = self._state[f"{name}.c_attn.weight"].split(self._d_model, dim=1)
        return {"q": q[:, part], "k": k[:, part], "v": v[:, part], "o": self._state[f"{name}.c_proj.weight"][part]}

    def _composition_scores(self, named: dict[str, str] | None = None) -> Tensor:
        kind = (named or {}).get("kind", "k")
        found = torch.full((self._n_layers, self._n_heads) * 2, torch.nan)
        for layer, head, later, other in torch.cartesian_prod(*map(torch.arange, found.shape)).tolist():
            if layer < later:
                first, second = self._ov(layer, head), self._read(kind, later, other)
                found[layer, head, later, other] = (first @ second).norm() / (first.norm() * second.norm())
        return found

    def _copying_scores(self, named: dict[str, str] | None = None) -> Tensor:
        is_of_values = (named or {}).get("circuit", "ov") == "ov"
        embedding = self._state["transformer.wte.weight"].double()
        unembedding = self._state["lm_head.weight"].double().T
        found = torch.empty(self._n_layers, self._n_heads)
        for layer in range(self._n_layers):
            for head in range(self._n_heads):
                w = {name: tensor.double() for name, tensor in self._head_weights(layer, head).items()}
                after, before = (w["o"] @ unembedding, w["v"]) if is_of_values else (w["k"].T @ embedding.T, w["q"])
                eigenvalues = torch.linalg.eigvals(after @ embedding @ before)  # those that are not 0
                found[layer, head] = eigenvalues.real.sum() / eigenvalues.abs().sum()
        return found

    def _ov(self, layer: int, head: int) -> Tensor:
        w = self._head_weights(layer, head)
        return w["v"].double() @ w["o"].double()

    def _read(self, kind: str, layer: int, head: int) -> Tensor:
        w = {name: tensor.double() for name, tensor in self._head_weights(layer, head).items()}
        return {"q": w["q"] @ w["k"].T, "k": w["k"] @ w["q"].T, "v": w["v"] @ w["o"]}[kind]
