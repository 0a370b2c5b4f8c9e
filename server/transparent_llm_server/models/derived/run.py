"""Every value of the contract, derived from one captured run. Nothing here writes to the capture.

Products and sums are computed in float32 (what analyses are made of: float64 for a model of that dtype) and rounded
once to the model's dtype.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, partial

import torch

from transparent_llm.factors import AttnFactors, FfnFactors, Rows
from transparent_llm.interventions import EditEffect
from transparent_llm.padding import RunPadding
from transparent_llm.runtime.indexing import checked_index, integer
from transparent_llm.runtime.numerics import standard_numerics, wide
from transparent_llm_server.models.derived.logits import Logits
from transparent_llm_server.models.derived.mixing import at_position, edited_activations, is_edited, times, weights
from transparent_llm_server.models.derived.not_finite import not_finite
from transparent_llm_server.models.derived.projected import heads_along, kv_head, value_weighted_norms
from transparent_llm_server.models.derived.unsupported import unsupported
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture, LayerCapture
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.neurons import Neurons
from transparent_llm_server.models.values.checked import CheckedValue
from transparent_llm_server.models.values.decompositions import AttnParts, DecomposedAttn, DecomposedFfn, FfnParts
from transparent_llm_server.models.values.value import Computed, Stored, Sum, Value

_WHAT_WAS_RUN = ("mask", "tokens")
_OF_HEADS = ("attention_output", "decomposed_attn")
_OF_NEURONS = ("decomposed_ffn_out", "neuron_activations")


class RunValues:
    """The run-scoped methods of `TransparentLlm`, under the same names; arguments are checked at once.

    Of a model that others may change meanwhile, what was computed while it was changed is not given out.
    """

    def __init__(self, model: BridgedModel, capture: Capture, effects: tuple[EditEffect, ...] = ()) -> None:
        self._model = model
        self._capture = capture
        self.effects = effects
        """What each edit of the run did."""

    @property
    def capture(self) -> Capture:
        """What the forward pass left. Nobody writes to it."""
        return self._capture

    def is_of(self, model: BridgedModel) -> bool:
        """Whether that model made it."""
        return self._model is model

    def place(self, batch_i: int, pos: int) -> tuple[int, int]:
        """A row and a position of it, counted from the beginning."""
        return self._checked(batch_i, pos)

    @property
    def nbytes(self) -> int:
        """Bytes that the run keeps alive."""
        return self._capture.nbytes

    def require_same_model(self, name: str, *indices: int | None) -> None:
        """Look whether the model is still the one that this run is of, closer at the weights that a method reads.

        Raises:
            NotFoundError: MODEL_CHANGED, as somebody has edited its weights since.
        """
        if name in _WHAT_WAS_RUN:
            return
        layer = indices[1] if name in (*_OF_HEADS, *_OF_NEURONS) and len(indices) > 1 else None
        if name == "logits":
            modules = self._model.final_modules
        elif layer is None:
            modules = []
        else:
            part = self._model.layers[layer]
            modules = part.head_modules if name in _OF_HEADS else part.neuron_modules
        self._model.edits.require_unchanged(self._capture.generation, *modules)

    @cached_property
    def warnings(self) -> tuple[str, ...]:
        """What should be known before these values are believed, in words."""
        return not_finite(self._capture, self._model.dtype)

    @cached_property
    def padding(self) -> RunPadding:
        """Where it has padding."""
        return RunPadding(self._capture.mask)

    def batch_size(self) -> int:
        """How many sentences the run has: rows of the batch."""
        return self._capture.tokens.shape[0]

    def tokens(self) -> Value:
        """Token ids, padded on the right [batch pos]."""
        return Stored(self._capture.tokens)

    def mask(self) -> Value:
        """True where there is a token [batch pos]."""
        return Stored(self._capture.mask)

    def logits(self) -> Value:
        """The model's own output [batch pos d_vocab]."""
        return self._unchanged(
            Logits(self._model, self._capture.residual_out, self._capture.final_scale), self._model.final_modules
        )

    def final_scale(self, batch_i: int) -> torch.Tensor | None:
        """What the final norm divides a row by [pos], where that was frozen."""
        found = self._capture.final_scale
        return None if found is None else found[checked_index("batch_i", batch_i, self.batch_size()), :, 0].clone()

    def residual_in(self, layer: int) -> Value:
        """The stream as it enters a block [batch pos d_model]."""
        return self._unchanged(Stored(self._at(layer)[1].residual_in))

    def residual_after_attn(self, layer: int) -> Value:
        """The stream between attention and feed-forward part [batch pos d_model], bit-equal to the model's own tensor
        where there is one."""
        _, capture = self._at(layer)
        before, added = capture.residual_in, capture.attn_out
        if added is None:
            raise unsupported(self._model, "residual_after_attn", layer, "has no attention output")
        if capture.residual_mid is not None:
            return self._unchanged(Stored(capture.residual_mid))
        return self._unchanged(Sum(before, added))

    def residual_out(self, layer: int) -> Value:
        """The stream as it leaves a block [batch pos d_model]."""
        layer = checked_index("layer", layer, len(self._model.layers))
        is_last = layer == len(self._model.layers) - 1
        residual = self._capture.residual_out if is_last else self._capture.layers[layer + 1].residual_in
        return self._unchanged(Stored(residual))

    def ffn_out(self, layer: int) -> Value:
        """What the feed-forward part added to the stream [batch pos d_model]."""
        _, capture = self._at(layer)
        if capture.ffn_out is None:
            raise unsupported(self._model, "ffn_out", layer, "has no separate feed-forward output")
        return self._unchanged(Stored(capture.ffn_out))

    def neuron_activations(self, batch_i: int, layer: int, pos: int) -> Value:
        """Activations of all neurons at one position [d_ffn]."""
        part, neurons, captured, capture = self._neurons("neuron_activations", layer)
        row, pos = self._checked(batch_i, pos)
        edited = edited_activations(capture, row, pos)
        activations = neurons.activations(captured, row, pos) if edited is None else Stored(edited)
        return self._unchanged(activations, part.neuron_modules)

    def decomposed_ffn_out(self, batch_i: int, layer: int, pos: int) -> Value:
        """What each neuron added to the stream at one position [hidden d_model]."""
        part, neurons, captured, capture = self._neurons("decomposed_ffn_out", layer)
        batch_i, pos = self._checked(batch_i, pos)
        edited = edited_activations(capture, batch_i, pos)
        activations, spans = neurons.factors(captured, batch_i, pos) if edited is None else (Stored(edited), None)
        gain = at_position(part.ffn_gain(capture, batch_i), pos)
        parts = FfnParts(activations, spans, gain, neurons.output_vectors)
        return self._unchanged(DecomposedFfn((neurons.count, self._model.d_model), parts), part.neuron_modules)

    def attention_matrix(self, batch_i: int, layer: int, head: int) -> Value:
        """Attention probabilities of one head [query_pos key_pos]."""
        _, pattern, _, _ = self._heads("attention_matrix", layer)
        head = checked_index("head", head, self._model.n_heads)
        return self._unchanged(Stored(pattern[checked_index("batch_i", batch_i, self.batch_size()), head]))

    def attention_output(self, batch_i: int, layer: int, pos: int, head: int | None = None) -> Value:
        """What attention, or one of its heads, added to the stream at one position [d_model]."""
        part, _, _, capture = self._heads("attention_output", layer)
        batch_i, pos = self._checked(batch_i, pos)
        if head is None:
            assert capture.attn_out is not None
            return self._unchanged(Stored(capture.attn_out[batch_i, pos]), part.head_modules)
        head = checked_index("head", head, self._model.n_heads)
        compute = partial(self._head_output, batch_i, layer, pos, head)
        is_quick = not self._model.materializes
        value = Computed((self._model.d_model,), self._model.dtype, compute, is_quick=is_quick)
        return self._unchanged(value, part.head_modules)

    def decomposed_attn(self, batch_i: int, layer: int) -> Value:
        """What each source gave to each target through each head [target source head d_model]: the product of pattern
        [head target source] and value_out [source head d_model]."""
        part, _, value, capture = self._heads("decomposed_attn", layer)
        batch_i = checked_index("batch_i", batch_i, self.batch_size())
        pattern = self._weights(capture, layer, batch_i)
        value_out = partial(self._value_out, part, value[batch_i])
        parts = AttnParts(pattern, value_out, part.attn_gain(capture, batch_i), self._model.d_model)
        return self._unchanged(DecomposedAttn(parts), part.head_modules)

    @standard_numerics()
    def attn_factors(self, batch_i: int, layer: int) -> AttnFactors:
        """What `decomposed_attn` is the product of, computed now; the pattern lies in the run's memory."""
        named = _computed_factors(self.decomposed_attn(batch_i, layer))
        return AttnFactors(named["pattern"], named["value_out"], named.get("gain"))

    @standard_numerics()
    def ffn_factors(self, batch_i: int, layer: int, pos: int) -> tuple[FfnFactors, Rows]:
        """What `decomposed_ffn_out` is the product of, computed now, and the output vectors of the model."""
        value = self.decomposed_ffn_out(batch_i, layer, pos)
        named, count = _computed_factors(value), value.shape[0]
        spans = named["spans"].tolist() if "spans" in named else [(0, count)]
        factors = FfnFactors(named["activations"], count, tuple((a, b) for a, b in spans), named.get("gain"))
        return factors, self._neurons("decomposed_ffn_out", layer)[1].output_vectors

    def attention_bias(self, batch_i: int, layer: int, pos: int) -> torch.Tensor:
        """What attention adds that belongs to no head [d_model]; the heads and this sum to its output."""
        part, _, _, capture = self._heads("attention_output", layer)
        return self._bias(part.b_o, at_position(part.attn_gain(capture, batch_i), pos), capture)

    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> torch.Tensor:
        """What the feed-forward part adds that belongs to no neuron [d_model]."""
        part, neurons, captured, capture = self._neurons("decomposed_ffn_out", layer)
        gain = at_position(part.ffn_gain(capture, batch_i), pos)
        return self._bias(neurons.bias(captured, batch_i, pos), gain, capture)

    def heads_along(self, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> Value:
        """What each head brought from each source to one position, along a direction [head source]."""
        part, _, value, capture = self._heads("decomposed_attn", layer)
        batch_i, pos = self._checked(batch_i, pos)
        pattern = self._weights(capture, layer, batch_i, slice(pos, pos + 1))[:, 0]
        gain = at_position(part.attn_gain(capture, batch_i), pos)

        def compute() -> torch.Tensor:
            seen = times(wide(along.to(pattern.device)), gain)
            return heads_along(part.w_o, pattern, value[batch_i], seen)

        shape = (self._model.n_heads, self._capture.tokens.shape[1])
        return self._unchanged(Computed(shape, wide(along).dtype, compute), part.head_modules)

    def value_weighted_norms(self, batch_i: int, layer: int) -> Value:
        """Length of what each head brought from each source to each target [head target source]."""
        part, _, value, capture = self._heads("decomposed_attn", layer)
        row = checked_index("batch_i", batch_i, self.batch_size())
        pattern = self._weights(capture, layer, row)
        gain = part.attn_gain(capture, row)

        def compute() -> torch.Tensor:
            factor = None if gain is None else gain.tensor()
            return value_weighted_norms(part.w_o, pattern.abs(), value[row], factor)

        dtype = torch.promote_types(pattern.dtype, torch.float32)
        return self._unchanged(Computed(pattern.shape, dtype, compute), part.head_modules)

    def _bias(self, bias: torch.Tensor | float, gain: Value | None, capture: LayerCapture) -> torch.Tensor:
        at = capture.residual_in.device
        return times(torch.as_tensor(bias).to(at), gain).expand(self._model.d_model).clone()

    def _head_output(self, batch_i: int, layer: int, pos: int, head: int) -> torch.Tensor:
        part, pattern, value, capture = self._heads("attention_output", layer)
        if capture.z is not None and is_edited(capture, batch_i, pos, head):
            mixed = wide(capture.z[batch_i, pos, head])
        else:
            source = wide(value[batch_i, :, kv_head(value, head, self._model.n_heads)])
            mixed = wide(pattern[batch_i, head, pos]) @ source
        gain = at_position(part.attn_gain(capture, batch_i), pos)
        return times(mixed @ wide(part.w_o[head]), gain).to(self._model.dtype)

    def _value_out(self, part: Layer, value: torch.Tensor, heads: range) -> torch.Tensor:
        """What each position offers through each of these heads [source head d_model], in float32.

        Head by head, so that a head's bits do not depend on which others are asked for.
        """
        w_o = part.w_o
        result = torch.empty(value.shape[0], len(heads), w_o.shape[2], dtype=torch.float32, device=value.device)
        for i, head in enumerate(heads):
            result[:, i] = value[:, kv_head(value, head, self._model.n_heads)].float() @ w_o[head].float()
        return result

    def _at(self, layer: int) -> tuple[Layer, LayerCapture]:
        layer = checked_index("layer", layer, len(self._model.layers))
        return self._model.layers[layer], self._capture.layers[layer]

    def _checked(self, batch_i: int, pos: int) -> tuple[int, int]:
        batch, n_pos = self._capture.tokens.shape
        row = checked_index("batch_i", batch_i, batch)
        n_tokens = int(self._capture.mask[row].sum()) if integer("pos", pos) < 0 else None
        return row, checked_index("pos", pos, n_pos, n_tokens)

    def _heads(self, method: str, layer: int) -> tuple[Layer, torch.Tensor, torch.Tensor, LayerCapture]:
        part, capture = self._at(layer)
        if capture.pattern is None or capture.value is None or capture.attn_out is None:
            raise unsupported(self._model, method, layer, "has no attention heads")
        return part, capture.pattern, capture.value, capture

    def _weights(self, capture: LayerCapture, layer: int, row: int, targets: slice = slice(None)) -> torch.Tensor:
        found = weights(capture, row, targets)
        if found is None:
            why = "has heads that were edited in this run by more than a factor, so that they are no sum over sources"
            raise unsupported(self._model, "decomposed_attn", layer, f"{why}; attention_output has what each adds")
        return found

    def _neurons(self, method: str, layer: int) -> tuple[Layer, Neurons, torch.Tensor, LayerCapture]:
        part, capture = self._at(layer)
        if part.neurons is None or capture.neurons is None:
            raise unsupported(self._model, method, layer, "has no neurons that can be told apart")
        return part, part.neurons, capture.neurons, capture

    def _unchanged(self, value: Value, modules: Sequence[torch.nn.Module] = ()) -> Value:
        """A value that is not given out if the model was edited; these modules, whose weights it reads, are looked at
        closer.

        Taking it raises:
            NotFoundError: MODEL_CHANGED.
        """
        edits = self._model.edits
        if not edits.is_watching:
            return value
        return CheckedValue(value, partial(edits.require_unchanged, self._capture.generation, *modules))


def _computed_factors(value: Value) -> dict[str, torch.Tensor]:
    return {factor.name: factor.value.tensor() for factor in value.factors()}
