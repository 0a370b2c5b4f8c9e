"""The output vectors of neurons and the circuits of heads, kept by the client under the model's digest: weights never
change."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import torch

from transparent_llm.client.cache import ByteLimitedCache
from transparent_llm.client.transport.calls import Calls
from transparent_llm.client.weights_folder import Key, WeightsFolder
from transparent_llm.description import ModelDescription
from transparent_llm.errors import DeadlineError
from transparent_llm.runtime.forking import lock_of
from transparent_llm.wire import dtypes, requests
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.methods import METHODS

_BLOCK_BYTES = 4 * 2**20
"""Neurons that are read one by one are read ahead in such blocks: the most that is ever sent in vain."""


class Weights:
    """Rows of W_out, and what is read of heads without a run, in memory and perhaps on disk. Shared by a client and its
    copies; nobody writes to them."""

    def __init__(self, calls: Calls) -> None:
        config = calls.config
        self._calls = calls
        self._kept: ByteLimitedCache[Key, tuple[torch.Tensor, ...]] = ByteLimitedCache(
            config.weights_bytes, lambda tensors: sum(tensor.nbytes for tensor in tensors)
        )
        self._folder = WeightsFolder(config.weights_dir, config) if config.weights_dir is not None else None
        self._reads: dict[tuple[str, int, int], int] = {}
        self._lock = lock_of(self)  # one download of a layer is enough for all threads

    def keeps_layer(self, model: ModelDescription, layer: int) -> bool:
        """Whether all output vectors of a layer can be kept."""
        return self._keeps(model.d_ffn[layer] * _row_bytes(model))

    def has_layer(self, model: ModelDescription, layer: int) -> bool:
        """Whether all output vectors of a layer are kept in memory now."""
        return self._kept.get(Key.of_neurons(model.digest, layer, 0, model.d_ffn[layer])) is not None

    def rows(self, model: ModelDescription, layer: int, start: int, stop: int) -> torch.Tensor:
        """Output vectors of neurons `start` to before `stop` [n d_model], fetched once.

        Raises:
            DeadlineError: other threads' downloads took all of the time.
        """
        whole = self._kept.get(Key.of_neurons(model.digest, layer, 0, model.d_ffn[layer]))
        if whole is not None:
            return whole[0][start:stop]
        key = Key.of_neurons(model.digest, layer, start, stop)
        timeout_s = self._calls.config.timeout_s
        if not self._lock.acquire(timeout=min(timeout_s, threading.TIMEOUT_MAX)):
            raise DeadlineError(f"other threads' weights took longer than {timeout_s:g} s; raise timeout_s")
        try:
            held = self._kept.get(key)
            if held is None:
                shape = (stop - start, model.info.d_model)
                held = (self._found(key, shape, _dtype(model), lambda: self._fetch(model, layer, start, stop)),)
                self._kept.put(key, held)
        finally:
            self._lock.release()
        return held[0]

    def row_if_kept(self, model: ModelDescription, layer: int | None, neuron: int | None) -> torch.Tensor | None:
        """One output vector [d_model], if it need not be fetched, or if its neighbours are asked for one by one too."""
        if layer is None or neuron is None or not (0 <= layer < len(model.d_ffn) and 0 <= neuron < model.d_ffn[layer]):
            return None  # the server says what is wrong
        if self.has_layer(model, layer):
            return self.rows(model, layer, neuron, neuron + 1)[0]
        per_block = max(1, _BLOCK_BYTES // _row_bytes(model))
        block, position = divmod(neuron, per_block)
        span = (block * per_block, min((block + 1) * per_block, model.d_ffn[layer]))
        if not self._keeps((span[1] - span[0]) * _row_bytes(model)):
            return None
        key = (model.digest, layer, block)
        self._reads[key] = self._reads.get(key, 0) + 1
        return self.rows(model, layer, *span)[position] if self._reads[key] > 1 else None

    def of_heads(
        self, key: Key, expected: Expected, fetch: Callable[[], tuple[torch.Tensor, ...]]
    ) -> tuple[torch.Tensor, ...]:
        """What is read of heads without a run, fetched once. Scores are kept in the folder too, which are one tensor
        whose shape is known; weights of heads in memory alone. Threads that ask at once may each fetch it."""
        held = self._kept.get(key)
        if held is None:
            shape = tuple(expected.sizes.get(axis, 0) for axis in expected.dims)
            if expected.parts or expected.dtype is None or not math.prod(shape):
                held = fetch()
            else:
                held = (self._found(key, shape, expected.dtype, lambda: fetch()[0]),)
            self._kept.put(key, held)
        return held

    def _keeps(self, nbytes: int) -> bool:
        max_bytes = self._calls.config.max_bytes
        return self._kept.keeps(nbytes) and (max_bytes is None or nbytes <= max_bytes)

    def _found(
        self, key: Key, shape: tuple[int, ...], dtype: torch.dtype, fetch: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        """In the folder, or else at the server."""
        if self._folder is None:
            return fetch()
        tensor = self._folder.load(key, shape, dtype)
        if tensor is None:
            tensor = fetch()
            self._folder.save(key, tensor)
        return tensor

    def _fetch(self, model: ModelDescription, layer: int, start: int, stop: int) -> torch.Tensor:
        request = requests.neuron_outputs(model.info.name, model.digest, layer, slice(start, stop))
        sizes = {"d_ffn": stop - start, "d_model": model.info.d_model}
        expected = Expected("neuron_outputs", METHODS["neuron_outputs"].dims or (), sizes, _dtype(model))
        return self._calls.tensor("NeuronOutputs", request, expected)


def _dtype(model: ModelDescription) -> torch.dtype:
    """Of a model's values, as far as they travel."""
    known = model.dtype if model.dtype in dtypes.WIRE_BY_TORCH else torch.float32
    assert known is not None
    return known


def _row_bytes(model: ModelDescription) -> int:
    return model.info.d_model * _dtype(model).itemsize
