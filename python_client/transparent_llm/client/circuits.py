"""The part of the remote object that reads weights of heads, and what is made of them next to the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from transparent_llm.client import expecting
from transparent_llm.client.connected import Connected
from transparent_llm.client.models import UNKNOWN_MODEL
from transparent_llm.client.weights_folder import Key
from transparent_llm.description import ModelDescription
from transparent_llm.errors import InternalError
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.wire import requests
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import METHODS


class RemoteCircuits(Connected):
    """Weights need no run: see `analysis.circuits.ReadsCircuits`."""

    def describe(self) -> ModelDescription:
        """Of the model that is asked."""
        raise NotImplementedError

    @plain_torch()
    def read_circuits(self, name: str, *arguments: int | str, axes: Mapping[str, slice]) -> torch.Tensor | Any:
        """One read, of the model that was run last or, before any run, of the one that is served. It belongs to the
        caller, who may write to it; what is kept of it is of that model's digest."""
        self._shared.models.require("matching_scores" if "qk" in arguments else "circuits")
        model = self._model_of_weights()
        digest = self._runs.digest or model.digest
        request = requests.of_weights(name, self._model, digest, *arguments, form=Form(tuple(axes.items())))
        expected = expecting.of_circuits(name, model, axes)
        method = METHODS[name]
        key = Key.of_heads(digest, name, request.SerializeToString(deterministic=True))
        found = self._shared.weights.of_heads(key, expected, lambda: self._of_heads(name, request, expected))
        given = tuple(tensor.to(self._device, copy=True) for tensor in found)
        return given if method.is_parts else given[0]

    def _model_of_weights(self) -> ModelDescription:
        """Of the run that was made last; before any, the one that is served now is asked for each time."""
        run = self._runs.latest
        if run is not None:
            run.find_model()
            if run.model is not UNKNOWN_MODEL:
                return run.model
        return self.describe()

    def _of_heads(self, name: str, request: requests.Request, expected: Expected) -> tuple[torch.Tensor, ...]:
        """From the server."""
        method = METHODS[name]
        found = tuple(tensor for _, tensor in self._calls.tensors(method.rpc, request, [expected]))
        widths = {n for dims, of in zip(method.result_dims, found, strict=True) for n in _width(dims, of)}
        if len(widths) > 1:
            raise InternalError(f"{self._config.target} gave weights of one head that are {sorted(widths)} wide")
        return found


def _width(dims: Sequence[str], tensor: torch.Tensor) -> list[int]:
    """Of heads, which no description says."""
    return [n for axis, n in zip(dims, tensor.shape, strict=True) if axis == "d_head"]
