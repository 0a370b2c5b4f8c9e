"""The values that an architecture does not have."""

from __future__ import annotations

from collections.abc import Callable

from transparent_llm.errors import NotSupportedError
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.layer import Layer


def unsupported(model: BridgedModel, method: str, layer: int, why: str) -> NotSupportedError:
    """The error for a value that this architecture does not have."""
    return NotSupportedError(
        f"{method} is not supported for layer {layer} of {model.architecture}: it {why}",
        metadata={"method": method, "architecture": model.architecture, "layer": str(layer)},
    )


def unsupported_values(model: BridgedModel) -> dict[str, str]:
    """RPC name -> why, for values that some layers do not have."""
    heads = (
        "AttentionMatrix",
        "AttentionOutput",
        "DecomposedAttn",
        "HeadWeights",
        "CompositionScores",
        "CopyingScores",
    )
    neurons = ("DecomposedFfnOut", "NeuronActivations", "NeuronOutput", "NeuronOutputs")
    lacking: tuple[tuple[str, tuple[str, ...], Callable[[Layer], bool]], ...] = (
        ("attention heads", heads, lambda layer: not layer.has_heads),
        ("neurons that can be told apart", neurons, lambda layer: layer.neurons is None),
        ("attention output", ("ResidualAfterAttn",), lambda layer: "attn_out" not in layer.hooks),
        ("separate feed-forward output", ("FfnOut",), lambda layer: "ffn_out" not in layer.hooks),
    )
    result = {}
    for what, methods, lacks in lacking:
        layers = [str(index) for index, layer in enumerate(model.layers) if lacks(layer)]
        if layers:
            result.update(dict.fromkeys(methods, f"layers {', '.join(layers)} have no {what}"))
    return result
