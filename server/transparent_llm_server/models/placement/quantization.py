"""Weights in fewer bits: the ways in which a model can be quantized when it is loaded.

Only ways that quantize weights and leave activations alone: then the parts of a layer, made with weights that are
brought back to floating numbers, sum up to what the model computed. That is checked at load as for any other model.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from transparent_llm.errors import InvalidRequestError, ModelRefusedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel
    from transformers.utils.quantization_config import QuantizationConfigMixin


@dataclass(frozen=True)
class Quantization:
    """A way to quantize weights, and what it needs."""

    module: str
    """What must be there to import."""

    package: str
    """Where it comes from."""

    config: Callable[[], QuantizationConfigMixin]
    """What transformers is told."""


def _quanto() -> QuantizationConfigMixin:
    from transformers import QuantoConfig

    return QuantoConfig(weights="int8")


def _torchao() -> QuantizationConfigMixin:
    from torchao.quantization import Int8WeightOnlyConfig
    from transformers import TorchAoConfig

    return TorchAoConfig(Int8WeightOnlyConfig())


QUANTIZATIONS = {
    "quanto-int8": Quantization("optimum.quanto", "optimum-quanto", _quanto),
    "torchao-int8": Quantization("torchao", "torchao", _torchao),
}


def quantization_of(name: str) -> Quantization:
    """The way of that name, whose package is here.

    Raises:
        InvalidRequestError: there is none, or its package is missing.
    """
    found = QUANTIZATIONS.get(name)
    if found is None:
        raise InvalidRequestError(f"quantization {name!r} is unknown; known are {', '.join(QUANTIZATIONS)}")
    if not _is_here(found.module):
        raise InvalidRequestError(
            f"quantization {name!r} requires a package that is not installed: pip install {found.package}"
        )
    return found


def refuse_if_quantized(hf_model: PreTrainedModel) -> None:
    """Refuse a model whose files, or whose owner, quantized it: nothing is known of how its weights are to be read.

    One that transformers brings back to floating numbers as it loads it, such as GPT-OSS without its kernels, is none.

    Raises:
        ModelRefusedError: with the method.
    """
    config = getattr(hf_model.config, "quantization_config", None)
    if config is not None:
        method = config.get("quant_method") if isinstance(config, dict) else config.quant_method
        name = str(getattr(method, "value", method))
        raise ModelRefusedError(
            f"{type(hf_model).__name__} is already quantized ({name}), and its weights cannot be read; load plain "
            f"ones, and quantize them here if need be: {', '.join(QUANTIZATIONS)}",
            metadata={"quantization": name},
        )


def require_quantized(hf_model: PreTrainedModel, name: str) -> None:
    """Refuse to say of a model that it is quantized if none of its weights is.

    Raises:
        InvalidRequestError: with the class of the model.
    """
    if not any(is_quantized(parameter) for parameter in hf_model.parameters()):
        raise InvalidRequestError(
            f"quantization {name!r} changed no weight of {type(hf_model).__name__}: it has no layers of the kind that "
            "this quantizes; load it without"
        )


def is_quantized(tensor: torch.Tensor) -> bool:
    """Whether it only stands for floating numbers."""
    return hasattr(tensor, "__tensor_flatten__")


def plain_parts(tensor: torch.Tensor) -> list[torch.Tensor]:
    """The ordinary tensors that it is made of: itself, or numbers of few bits and their scales."""
    if not is_quantized(tensor):
        return [tensor]
    names, _ = tensor.__tensor_flatten__()  # type: ignore[attr-defined]
    return [part for name in names for part in plain_parts(getattr(tensor, name))]


@contextmanager
def dequantized(module: torch.nn.Module) -> Iterator[None]:
    """Within this block a module's own weights are floating numbers that can be cut and multiplied."""
    held = {name: p for name, p in module._parameters.items() if p is not None and is_quantized(p)}
    for name, parameter in held.items():
        module._parameters[name] = torch.nn.Parameter(parameter.detach().dequantize(), requires_grad=False)
    try:
        yield
    finally:
        module._parameters.update(held)


def _is_here(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it is in
        return False
