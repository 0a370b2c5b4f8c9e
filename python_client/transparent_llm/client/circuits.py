"""The part of the remote object that reads weights of heads, and what is made of them next to the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from transparent_llm.client import expecting
from transparent_llm.client.connected import Connected
from transparent_llm.description import ModelDescription
from transparent_llm.errors import InternalError
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.wire import requests
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import METHODS


class RemoteCircuits(Connected):
    """Weights need no run: see `analysis.circuits.ReadsCircuits`."""

    def describe(self) -> ModelDescription:
        """Of the model that is asked."""
        raise NotImplementedError

    @plain_torch()
    def read_circuits(self, name: str, *arguments: int | str, axes: Mapping[str, slice]) -> torch.Tensor | Any:
        """One read, of the model that was run last or, before any run, of the one that is served."""
        self._shared.models.require("circuits")
        model = self.describe()
        digest = self._runs.digest or model.digest
        request = requests.of_weights(name, self._model, digest, *arguments, form=Form(tuple(axes.items())))
        expected = expecting.of_circuits(name, model, axes)
        method = METHODS[name]
        found = [tensor for _, tensor in self._calls.tensors(method.rpc, request, [expected])]
        widths = {n for dims, of in zip(method.result_dims, found, strict=True) for n in _width(dims, of)}
        if len(widths) > 1:
            raise InternalError(f"{self._config.target} gave weights of one head that are {sorted(widths)} wide")
        given = tuple(tensor.to(self._device) for tensor in found)
        return given if method.is_parts else given[0]


def _width(dims: Sequence[str], tensor: torch.Tensor) -> list[int]:
    """Of heads, which no description says."""
    return [n for axis, n in zip(dims, tensor.shape, strict=True) if axis == "d_head"]
