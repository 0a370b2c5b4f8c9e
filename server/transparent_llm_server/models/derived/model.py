"""What can be read of a model without any run."""

from __future__ import annotations

from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.unsupported import unsupported
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import Neurons
from transparent_llm_server.models.values.decompositions import ByRows
from transparent_llm_server.models.values.value import Stored, Value


class Weights:
    """The weights that the contract gives out, under the names of its methods."""

    def __init__(self, model: BridgedModel) -> None:
        self._model = model

    def neuron_output(self, layer: int, neuron: int) -> Value:
        """See the contract."""
        neurons = self._neurons("neuron_output", layer)
        neuron = checked_index("neuron", neuron, neurons.count)
        return Stored(neurons.output_vectors(neuron, neuron + 1)[0])

    def neuron_outputs(self, layer: int) -> Value:
        """The output vectors of all neurons of a layer [d_ffn d_model]."""
        neurons = self._neurons("neuron_outputs", layer)
        return ByRows((neurons.count, self._model.d_model), self._model.dtype, neurons.output_vectors)

    def _neurons(self, method: str, layer: int) -> Neurons:
        neurons = self._model.layers[checked_index("layer", layer, len(self._model.layers))].neurons
        if neurons is None:
            raise unsupported(self._model, method, layer, "has no neurons that can be told apart")
        return neurons
