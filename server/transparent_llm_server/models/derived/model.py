"""What can be read of a model without any run."""

from __future__ import annotations

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.circuits import CircuitReader, CompositionScores, CopyingScores
from transparent_llm_server.models.derived.unembedded import Unembedded
from transparent_llm_server.models.derived.unsupported import unsupported
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import Neurons
from transparent_llm_server.models.values.decompositions import ByRows
from transparent_llm_server.models.values.value import Stored, Value


class ModelValues:
    """The methods of `TransparentLlm` that need no run, under the same names; arguments are checked at once."""

    def __init__(self, model: BridgedModel) -> None:
        self._model = model

    def unembed(self, t: torch.Tensor, normalize: bool) -> Value:
        """Vocabulary scores of a residual vector, or of each of some; with `normalize`, the model's own last step."""
        d_model = self._model.d_model
        if t.ndim not in (1, 2) or t.shape[-1] != d_model:
            raise InvalidRequestError(
                f"unembed takes a vector of d_model = {d_model} elements, or a matrix of such rows, got shape "
                f"{list(t.shape)}",
                reason="INVALID_SHAPE",
                metadata={"expected": f"[{d_model}] or [n {d_model}]", "got": str(list(t.shape))},
            )
        if not t.is_floating_point():
            raise InvalidRequestError(
                f"unembed takes a floating vector, got {t.dtype}",
                reason="INVALID_DTYPE",
                metadata={"got": str(t.dtype), "allowed": "F16, BF16, F32, F64"},
            )
        return Unembedded(self._model, t, normalize=normalize)

    def neuron_output(self, layer: int, neuron: int) -> Value:
        """Raw output vector of one neuron [d_model]."""
        neurons = self._neurons("neuron_output", layer)
        neuron = checked_index("neuron", neuron, neurons.count)
        return Stored(neurons.output_vectors(neuron, neuron + 1)[0])

    def neuron_outputs(self, layer: int) -> Value:
        """The output vectors of all neurons of a layer [d_ffn d_model]."""
        neurons = self._neurons("neuron_outputs", layer)
        return ByRows((neurons.count, self._model.d_model), self._model.dtype, neurons.output_vectors)

    def head_weights(self, layer: int, head: int) -> tuple[Value, ...]:
        """Of one head: q, k, v [d_model d_head] and o [d_head d_model]."""
        reader = CircuitReader(self._model, "head_weights")
        found = reader.weights(checked_index("layer", layer, len(self._model.layers)))
        head = checked_index("head", head, self._model.n_heads)
        of_kv = found.kv_head(head)
        parts = (found.q[head], found.k[of_kv], found.v[of_kv], found.o[head])
        return tuple(Stored(part.to(self._model.dtype)) for part in parts)

    def composition_scores(self, kind: str) -> Value:
        """How much of what each head writes each later head reads."""
        reader = CircuitReader(self._model, "composition_scores")
        reader.require_all()
        return CompositionScores(reader, kind)

    def copying_scores(self, circuit: str = "ov") -> Value:
        """How much each head makes the tokens that it attends to more likely, or attends to its own [layer head]."""
        reader = CircuitReader(self._model, "copying_scores")
        reader.require_all()
        return CopyingScores(reader, circuit)

    def _neurons(self, method: str, layer: int) -> Neurons:
        neurons = self._model.layers[checked_index("layer", layer, len(self._model.layers))].neurons
        if neurons is None:
            raise unsupported(self._model, method, layer, "has no neurons that can be told apart")
        return neurons
