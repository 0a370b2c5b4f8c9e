"""What should be known of a run whose values are not all numbers."""

from __future__ import annotations

import torch

from transparent_llm_server.models.forward.capture import Capture

_MOST_PLACES = 5
"""Rows that a warning names."""


def not_finite(capture: Capture, dtype: torch.dtype) -> tuple[str, ...]:
    """A warning that says where they begin, or none."""
    found, name = capture.not_finite(), str(dtype).removeprefix("torch.")
    places = [f"row {row} {_from_layer(layer)}" for row, layer in sorted(found.items())]
    if not places:
        return ()
    more = f" and {len(places) - _MOST_PLACES} more rows" if len(places) > _MOST_PLACES else ""
    return (
        f"values are not finite: {', '.join(places[:_MOST_PLACES])}{more}. The largest number of {name} is "
        f"{torch.finfo(dtype).max:g}; load the model in a wider type, such as bfloat16 or float32",
    )


def _from_layer(layer: int) -> str:
    return "from the embedding on" if layer < 0 else f"from layer {layer} on"
