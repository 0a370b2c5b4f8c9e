"""Every value of the contract, derived from one captured run. Nothing here writes to the capture.

Results may be views of the run's memory: callers who hand them out for editing copy them first. Products
and sums are computed in float32 and rounded once to the model's dtype.
"""

from __future__ import annotations

import torch

from transparent_llm.errors import NotSupportedError
from transparent_llm.indexing import checked_index
from transparent_llm_server.models.bridged import BridgedModel
from transparent_llm_server.models.capture import Capture, LayerCapture
from transparent_llm_server.models.layer import Layer
from transparent_llm_server.models.neurons import Neurons


class Values:
    """The run-scoped methods of `TransparentLlm`, under the same names."""

    def __init__(self, model: BridgedModel, capture: Capture) -> None:
        self._model = model
        self._capture = capture

    @property
    def nbytes(self) -> int:
        """Bytes that the run keeps alive."""
        return self._capture.nbytes

    def batch_size(self) -> int:
        """See the contract."""
        return self._capture.tokens.shape[0]

    def tokens(self) -> torch.Tensor:
        """See the contract."""
        return self._capture.tokens

    def mask(self) -> torch.Tensor:
        """See the contract."""
        return self._capture.mask

    def logits(self) -> torch.Tensor:
        """See the contract."""
        return self._capture.logits

    def residual_in(self, layer: int) -> torch.Tensor:
        """See the contract."""
        return self._at(layer)[1].residual_in

    def residual_after_attn(self, layer: int) -> torch.Tensor:
        """See the contract. Bit-equal to the model's own tensor where there is one."""
        _, capture = self._at(layer)
        if capture.attn_out is None:
            raise unsupported(self._model, "residual_after_attn", layer, "has no attention output")
        return capture.residual_in + capture.attn_out

    def residual_out(self, layer: int) -> torch.Tensor:
        """See the contract."""
        layer = checked_index("layer", layer, len(self._model.layers))
        is_last = layer == len(self._model.layers) - 1
        return self._capture.residual_out if is_last else self._capture.layers[layer + 1].residual_in

    def ffn_out(self, layer: int) -> torch.Tensor:
        """See the contract."""
        _, capture = self._at(layer)
        if capture.ffn_out is None:
            raise unsupported(self._model, "ffn_out", layer, "has no separate feed-forward output")
        return capture.ffn_out

    @torch.no_grad()
    def neuron_activations(self, batch_i: int, layer: int, pos: int) -> torch.Tensor:
        """See the contract."""
        neurons, captured, _ = self._neurons("neuron_activations", layer)
        batch_i, pos = self._checked(batch_i, pos)
        return neurons.activations(captured, batch_i, pos)

    @torch.no_grad()
    def decomposed_ffn_out(self, batch_i: int, layer: int, pos: int) -> torch.Tensor:
        """See the contract."""
        neurons, captured, capture = self._neurons("decomposed_ffn_out", layer)
        batch_i, pos = self._checked(batch_i, pos)
        gain = _at_position(self._model.layers[layer].ffn_gain(capture, batch_i), pos)
        return neurons.contributions(captured, batch_i, pos, gain).to(self._model.dtype)

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> torch.Tensor:
        """See the contract."""
        _, pattern, _, _ = self._heads("attention_matrix", layer)
        head = checked_index("head", head, self._model.n_heads)
        return pattern[checked_index("batch_i", batch_i, self.batch_size()), head]

    @torch.no_grad()
    def attention_output(self, batch_i: int, layer: int, pos: int, head: int | None = None) -> torch.Tensor:
        """See the contract."""
        part, pattern, value, capture = self._heads("attention_output", layer)
        batch_i, pos = self._checked(batch_i, pos)
        if head is None:
            assert capture.attn_out is not None
            return capture.attn_out[batch_i, pos]
        head = checked_index("head", head, self._model.n_heads)
        source = value[batch_i, :, head * value.shape[2] // self._model.n_heads].float()
        mixed = pattern[batch_i, head, pos].float() @ source
        gain = _at_position(part.attn_gain(capture, batch_i), pos)
        return (mixed @ part.w_o[head].float() * gain).to(self._model.dtype)

    @torch.no_grad()
    def decomposed_attn(self, batch_i: int, layer: int) -> torch.Tensor:
        """See the contract. The product of two factors: pattern [t s h] and value_out [s h d_model]."""
        part, pattern, value, capture = self._heads("decomposed_attn", layer)
        batch_i = checked_index("batch_i", batch_i, self.batch_size())
        weights = pattern[batch_i].permute(1, 2, 0).float()
        result = weights.unsqueeze(-1) * self._value_out(part, value[batch_i])
        gain = part.attn_gain(capture, batch_i)
        result.mul_(gain[:, None, None, :] if isinstance(gain, torch.Tensor) else gain)
        return result.to(self._model.dtype)

    def attention_bias(self, batch_i: int, layer: int, pos: int) -> torch.Tensor | float:
        """What attention adds that belongs to no head [d_model]; the heads and this sum to its output."""
        part, _, _, capture = self._heads("attention_output", layer)
        return part.b_o * _at_position(part.attn_gain(capture, batch_i), pos)

    @torch.no_grad()
    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> torch.Tensor | float:
        """What the feed-forward part adds that belongs to no neuron [d_model]."""
        neurons, captured, capture = self._neurons("decomposed_ffn_out", layer)
        gain = _at_position(self._model.layers[layer].ffn_gain(capture, batch_i), pos)
        return neurons.bias(captured, batch_i, pos) * gain

    def _value_out(self, part: Layer, value: torch.Tensor) -> torch.Tensor:
        """What each position offers through each head [source head d_model], in float32."""
        expanded = value.float().repeat_interleave(self._model.n_heads // value.shape[1], dim=1)
        return torch.einsum("shd,hdm->shm", expanded, part.w_o.float())

    def _at(self, layer: int) -> tuple[Layer, LayerCapture]:
        layer = checked_index("layer", layer, len(self._model.layers))
        return self._model.layers[layer], self._capture.layers[layer]

    def _checked(self, batch_i: int, pos: int) -> tuple[int, int]:
        batch, n_pos = self._capture.tokens.shape
        return checked_index("batch_i", batch_i, batch), checked_index("pos", pos, n_pos)

    def _heads(self, method: str, layer: int) -> tuple[Layer, torch.Tensor, torch.Tensor, LayerCapture]:
        part, capture = self._at(layer)
        if capture.pattern is None or capture.value is None or capture.attn_out is None:
            raise unsupported(self._model, method, layer, "has no attention heads")
        return part, capture.pattern, capture.value, capture

    def _neurons(self, method: str, layer: int) -> tuple[Neurons, torch.Tensor, LayerCapture]:
        part, capture = self._at(layer)
        if part.neurons is None or capture.neurons is None:
            raise unsupported(self._model, method, layer, "has no neurons that can be told apart")
        return part.neurons, capture.neurons, capture


def unsupported(model: BridgedModel, method: str, layer: int, why: str) -> NotSupportedError:
    """The error for a value that this architecture does not have."""
    return NotSupportedError(
        f"{method} is not supported for layer {layer} of {model.architecture}: it {why}",
        metadata={"method": method, "architecture": model.architecture, "layer": str(layer)},
    )


def _at_position(gain: torch.Tensor | float, pos: int) -> torch.Tensor | float:
    return gain[pos] if isinstance(gain, torch.Tensor) else gain
