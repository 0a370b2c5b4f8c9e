"""What callers in this process are given: computed, and in memory that is theirs."""

from __future__ import annotations

from typing import Any

import torch

from transparent_llm.runtime.numerics import standard_numerics
from transparent_llm.selection import Padding
from transparent_llm_server.models.derived.model import ModelValues
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.values.value import Found


def of_run(values: RunValues, name: str, *indices: int | None, padding: Padding) -> torch.Tensor | Any:
    """What the method of that name returns: a tensor, or a tuple of several."""
    result = of_model(values, name, *indices)
    values.padding.apply(name, indices, result, padding)
    return result


@standard_numerics()
def of_model(values: RunValues | ModelValues, name: str, *arguments: torch.Tensor | int | None) -> torch.Tensor | Any:
    """The same, as it is."""
    found: Found = getattr(values, name)(*arguments)
    if isinstance(found, tuple):
        return tuple(None if value is None else value.own_tensor() for value in found)
    return found.own_tensor()
