"""The neurons of a feed-forward part: what they are, their activations and their output vectors.

Two kinds. Dense: one neuron per row of `W_out`. Mixture of experts: neuron `expert * d_expert + j`, whose
activation includes the router's weight, and is zero for experts that were not chosen; neurons of a shared
expert follow after all routed ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch.nn.functional import linear


class Neurons(ABC):
    """The neurons of one layer."""

    count: int
    """How many: the length of the `d_ffn` axis."""

    @abstractmethod
    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor:
        """Activations [d_ffn] at one position, from what the forward pass left."""

    @abstractmethod
    def output_vector(self, neuron: int) -> torch.Tensor:
        """Raw output weights [d_model] of one neuron; a view of the model's memory."""

    @abstractmethod
    def contributions(self, captured: torch.Tensor, batch_i: int, pos: int, gain: torch.Tensor | float) -> torch.Tensor:
        """Activation times output vector times gain [d_ffn d_model], in float32."""

    @abstractmethod
    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:
        """What the layer adds besides its neurons [d_model], before the gain."""


class DenseNeurons(Neurons):
    """An ordinary or gated feed-forward layer, seen through its bridge."""

    def __init__(self, mlp: Any) -> None:
        self._mlp = mlp
        self.count = mlp.W_out.shape[0]

    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor:
        """Row of the captured activations [batch pos d_ffn]."""
        return captured[batch_i, pos]

    def output_vector(self, neuron: int) -> torch.Tensor:
        """Row of W_out."""
        row: torch.Tensor = self._mlp.W_out[neuron]
        return row.detach()

    def contributions(self, captured: torch.Tensor, batch_i: int, pos: int, gain: torch.Tensor | float) -> torch.Tensor:
        """All neurons, chosen or not: a dense layer has no router."""
        product = captured[batch_i, pos].float()[:, None] * self._mlp.W_out.detach().float()
        scaled: torch.Tensor = product.mul_(gain)
        return scaled

    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:  # noqa: ARG002
        """The output bias, if the layer has one."""
        bias = getattr(self._mlp, "b_out", None)
        return 0.0 if bias is None else torch.as_tensor(bias).detach().float()


class ExpertNeurons(Neurons):
    """A mixture of experts whose experts lie stacked in `gate_up_proj` and `down_proj`.

    `captured` is the input of the layer. Routing is computed again for the whole batch with the model's own
    router, so that it chooses exactly as the forward pass did.
    """

    def __init__(self, block: Any) -> None:
        self._experts = unbridged(block.experts)
        self._router = unbridged(getattr(block, "gate", None) or block.router)
        self._shared = unbridged(getattr(block, "shared_expert", None) or getattr(block, "shared_experts", None))
        self._shared_gate = unbridged(getattr(block, "shared_expert_gate", None))
        # gpt_oss stores [expert, in, out] and has biases; the others store [expert, out, in].
        self._transposed = hasattr(self._experts, "gate_up_proj_bias")
        stacked = self._experts.down_proj
        self._n_experts = stacked.shape[0]
        self._d_expert = stacked.shape[1 if self._transposed else 2]
        self._d_shared = self._shared_down().shape[1] if self._shared is not None else 0
        self.count = self._n_experts * self._d_expert + self._d_shared

    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor:
        """Router weight times expert activation; zero where the router did not choose."""
        activations = captured.new_zeros(self.count)
        for span, values, _ in self._active(captured, batch_i, pos):
            activations[span] = values
        return activations

    def output_vector(self, neuron: int) -> torch.Tensor:
        """Column of the expert's down projection."""
        expert, j = divmod(neuron, self._d_expert)
        if expert >= self._n_experts:
            return self._shared_down()[:, neuron - self._n_experts * self._d_expert].detach()
        return self._down(expert)[j].detach()

    def contributions(self, captured: torch.Tensor, batch_i: int, pos: int, gain: torch.Tensor | float) -> torch.Tensor:
        """Only the chosen experts are computed; all other rows are zero."""
        result = torch.zeros(self.count, captured.shape[-1], device=captured.device)
        for span, values, rows in self._active(captured, batch_i, pos):
            result[span] = (values.float()[:, None] * rows.detach().float()).mul_(gain)
        return result

    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:
        """The chosen experts' output biases, by the router's weights."""
        bias = getattr(self._experts, "down_proj_bias", None)
        if bias is None:
            return 0.0
        weights, chosen = self._routing(captured, batch_i, pos)
        return weights.float() @ torch.as_tensor(bias).detach()[chosen].float()

    def _active(self, captured: torch.Tensor, batch_i: int, pos: int) -> list[tuple[slice, torch.Tensor, torch.Tensor]]:
        """(neurons, activations, output rows) of each chosen expert, and of the shared one."""
        x = captured[batch_i, pos]
        weights, chosen = self._routing(captured, batch_i, pos)
        active = []
        for weight, expert in zip(weights, chosen.tolist(), strict=True):
            start = expert * self._d_expert
            span = slice(start, start + self._d_expert)
            active.append((span, weight * self._expert_activations(expert, x), self._down(expert)))
        if self._shared is not None:
            span = slice(self._n_experts * self._d_expert, self.count)
            active.append((span, self._shared_activations(x), self._shared_down().T))
        return active

    def _routing(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and indices of the experts chosen at one position, [top_k] each."""
        _, weights, chosen = self._router(captured.reshape(-1, captured.shape[-1]))
        row = batch_i * captured.shape[1] + pos
        return weights[row], chosen[row]

    def _expert_activations(self, expert: int, x: torch.Tensor) -> torch.Tensor:
        stacked = self._experts.gate_up_proj[expert]
        if self._transposed:
            gate_up = x @ stacked + self._experts.gate_up_proj_bias[expert]
            activations: torch.Tensor = self._experts._apply_gate(gate_up)
            return activations
        gate, up = linear(x, stacked).chunk(2, dim=-1)
        product: torch.Tensor = self._experts.act_fn(gate) * up
        return product

    def _down(self, expert: int) -> torch.Tensor:
        """Output rows of one expert [d_expert d_model]."""
        stacked: torch.Tensor = self._experts.down_proj[expert]
        return stacked if self._transposed else stacked.T

    def _shared_activations(self, x: torch.Tensor) -> torch.Tensor:
        shared = self._shared
        gate, up = unbridged(shared.gate_proj), unbridged(shared.up_proj)
        activations: torch.Tensor = shared.act_fn(gate(x)) * up(x)
        return activations if self._shared_gate is None else activations * torch.sigmoid(self._shared_gate(x))

    def _shared_down(self) -> torch.Tensor:
        weight: torch.Tensor = unbridged(self._shared.down_proj).weight
        return weight


def unbridged(module: Any) -> Any:
    """The plain module inside a bridge component; calling it fires no hooks."""
    while getattr(module, "original_component", None) is not None:
        module = module.original_component
    return module
