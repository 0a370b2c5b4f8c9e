"""The neurons of a feed-forward part: what they are, their activations and their output vectors.

Two kinds. Dense: one neuron per row of `W_out`. Mixture of experts: neuron `expert * d_expert + j`, whose
activation includes the router's weight, and is zero for experts that were not chosen; neurons of a shared
expert follow after all routed ones.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import linear

from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.values.value import Computed, Stored, Value

if TYPE_CHECKING:
    from transformer_lens.model_bridge.generalized_components import MLPBridge

Materialize = Callable[..., AbstractContextManager[None]]
"""Within it, the weights of the modules that it is given can be read."""


class Neurons(ABC):
    """The neurons of one layer."""

    count: int
    """How many: the length of the `d_ffn` axis."""

    @property
    def most_active(self) -> int:
        """How many are computed of one position."""
        return self.count

    @abstractmethod
    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> Value:
        """Activations [d_ffn] at one position, from what the forward pass left."""

    @abstractmethod
    def output_vectors(self, start: int, stop: int) -> torch.Tensor:
        """Raw output weights of some neurons [n d_model]; may be a view of the model's memory."""

    @abstractmethod
    def factors(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[Value, Value | None]:
        """What, with the output vectors, makes each neuron's contribution: activations, and the spans of neurons that
        they are those of [span 2]; None where they are those of all."""

    @abstractmethod
    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:
        """What the layer adds besides its neurons [d_model], before the gain."""


class DenseNeurons(Neurons):
    """An ordinary or gated feed-forward layer, seen through its bridge."""

    def __init__(self, mlp: MLPBridge, materialized: Materialize) -> None:
        self._mlp, self._materialized = mlp, materialized
        with materialized(mlp):
            self.count = mlp.W_out.shape[0]

    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> Value:
        """Row of the captured activations [batch pos d_ffn]."""
        return Stored(captured[batch_i, pos])

    def output_vectors(self, start: int, stop: int) -> torch.Tensor:
        """Rows of W_out, which are the model's own memory."""
        with self._materialized(self._mlp):
            rows: torch.Tensor = self._mlp.W_out[start:stop]
            return rows.detach()

    def factors(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[Value, Value | None]:
        """All neurons: a dense layer has no router."""
        return self.activations(captured, batch_i, pos), None

    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:  # noqa: ARG002
        """The output bias, if the layer has one."""
        with self._materialized(self._mlp):
            bias = getattr(self._mlp, "b_out", None)
            if bias is not None and bias.is_meta:  # the bridge's name for it stays with the placeholder
                bias = self._mlp.out.bias
            return 0.0 if bias is None else wide(torch.as_tensor(bias).detach())


class ExpertNeurons(Neurons):
    """A mixture of experts whose experts lie stacked in `gate_up_proj` and `down_proj`.

    `captured` is the input of the layer. Routing is computed again for the whole batch with the model's own
    router, so that it chooses exactly as the forward pass did.
    """

    def __init__(self, block: torch.nn.Module, materialized: Materialize) -> None:
        self._materialized = partial(materialized, block)
        self._experts = unbridged(block.experts)
        self._router = unbridged(getattr(block, "gate", None) or block.router)
        self._top_k: int | None = getattr(self._router, "top_k", None)
        self._shared = unbridged(getattr(block, "shared_expert", None) or getattr(block, "shared_experts", None))
        self._shared_gate = unbridged(getattr(block, "shared_expert_gate", None))
        # gpt_oss stores [expert, in, out] and has biases; the others store [expert, out, in].
        self._transposed = hasattr(self._experts, "gate_up_proj_bias")
        stacked = self._experts.down_proj
        self._n_experts = stacked.shape[0]
        self._d_expert = stacked.shape[1 if self._transposed else 2]
        self._d_shared = self._shared_down().shape[1] if self._shared is not None else 0
        self.count = self._n_experts * self._d_expert + self._d_shared

    @property
    def most_active(self) -> int:
        """Those of the experts that are chosen, and of the shared one; of all, where their number is not known."""
        return self.count if self._top_k is None else self._top_k * self._d_expert + self._d_shared

    def activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> Value:
        """Router weight times expert activation; zero where the router did not choose."""
        return Computed((self.count,), captured.dtype, lambda: self._all_activations(captured, batch_i, pos))

    def activations_at(self, captured: torch.Tensor, rows: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Those at some places [n d_ffn], with one look at what the router chooses."""
        found = captured.new_zeros(len(rows), self.count)
        with self._materialized():
            _, weights, chosen = self._router(captured.reshape(-1, captured.shape[-1]))
            for values, row, pos in zip(found, rows, positions, strict=True):
                n = row * captured.shape[1] + pos
                for span, active in self._active_of(captured[row, pos], weights[n], chosen[n]):
                    values[span] = active
        return found

    def output_vectors(self, start: int, stop: int) -> torch.Tensor:
        """Columns of the experts' down projections."""
        with self._materialized():
            return self._output_vectors(start, stop).detach()

    def _output_vectors(self, start: int, stop: int) -> torch.Tensor:
        parts = [self._down(0)[:0]]
        n_routed = self._n_experts * self._d_expert
        while start < min(stop, n_routed):
            expert, j = divmod(start, self._d_expert)
            end = min(stop, start + self._d_expert - j)
            parts.append(self._down(expert)[j : j + end - start])
            start = end
        if start < stop:
            parts.append(self._shared_down()[:, start - n_routed : stop - n_routed].T)
        return parts[-1] if len(parts) <= 2 else torch.cat(parts)

    def factors(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[Value, Value | None]:
        """Only the chosen experts, and the shared one. Whichever of the two is taken first computes both."""
        both = cache(partial(self._factors, captured, batch_i, pos))
        n_chosen = self._n_chosen(captured)
        n_neurons, n_spans = n_chosen * self._d_expert + self._d_shared, n_chosen + (self._shared is not None)
        return (
            Computed((n_neurons,), captured.dtype, lambda: both()[0]),
            Computed((n_spans, 2), torch.int64, lambda: both()[1]),
        )

    def _factors(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[torch.Tensor, torch.Tensor]:
        active = self._active(captured, batch_i, pos)
        activations = torch.cat([values.to(captured.dtype) for _, values in active])
        return activations, torch.tensor([(span.start, span.stop) for span, _ in active], dtype=torch.int64)

    def _n_chosen(self, captured: torch.Tensor) -> int:
        """How many experts the router chooses for a position: as it says, or else as it does for one."""
        if self._top_k is None:
            with self._materialized():
                self._top_k = self._router(captured[:1, :1].reshape(1, -1))[2].shape[-1]
        return int(self._top_k)

    def bias(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor | float:
        """The chosen experts' output biases, by the router's weights."""
        weights, chosen = self._routing(captured, batch_i, pos)
        with self._materialized():
            bias = getattr(self._experts, "down_proj_bias", None)
            return 0.0 if bias is None else wide(weights) @ wide(torch.as_tensor(bias).detach()[chosen])

    def _all_activations(self, captured: torch.Tensor, batch_i: int, pos: int) -> torch.Tensor:
        activations = captured.new_zeros(self.count)
        for span, values in self._active(captured, batch_i, pos):
            activations[span] = values
        return activations

    def _active(self, captured: torch.Tensor, batch_i: int, pos: int) -> list[tuple[slice, torch.Tensor]]:
        """(neurons, activations) of each chosen expert, and of the shared one."""
        x = captured[batch_i, pos]
        weights, chosen = self._routing(captured, batch_i, pos)
        with self._materialized():
            return self._active_of(x, weights, chosen)

    def _active_of(
        self, x: torch.Tensor, weights: torch.Tensor, chosen: torch.Tensor
    ) -> list[tuple[slice, torch.Tensor]]:
        active = []
        for weight, expert in zip(weights, chosen.tolist(), strict=True):
            start = expert * self._d_expert
            active.append((slice(start, start + self._d_expert), weight * self._expert_activations(expert, x)))
        if self._shared is not None:
            active.append((slice(self._n_experts * self._d_expert, self.count), self._shared_activations(x)))
        return active

    def _routing(self, captured: torch.Tensor, batch_i: int, pos: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights and indices of the experts chosen at one position, [top_k] each."""
        with self._materialized():
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


def unbridged(module: Any) -> Any:  # what it has, and gives when called, differs from family to family
    """The plain module inside a bridge component; calling it fires no hooks."""
    while getattr(module, "original_component", None) is not None:
        module = module.original_component
    return module
