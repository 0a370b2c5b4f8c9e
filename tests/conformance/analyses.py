"""Analyses as scenarios ask for them: indices in their order, and an object of what has a name at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from transparent_llm import TransparentLlm
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.circuits import CIRCUITS, HeadWeights
from transparent_llm.wire.methods import METHODS


def arguments_of(method: str, given: Sequence[Any]) -> list[Any]:
    """All arguments in their order, as reads of the Python client have them."""
    row = METHODS[method]
    if not row.is_analysis or not given or not isinstance(given[-1], dict):
        return list(given)
    indices, named = list(given[:-1]), dict(given[-1])
    indices += [named.pop(name, None) for name in row.arguments[len(indices) :]]
    parameters = [_hashable(named.pop(each.name, each.default)) for each in row.parameters]
    assert not named, f"{method} has no {', '.join(named)}"
    return [*indices, *parameters]


def circuit_arguments(method: str, given: Sequence[Any]) -> list[Any]:
    """Arguments of a read of weights of heads, in their order; a composition is "k", and copying "ov", unless given."""
    indices = [each for each in given if not isinstance(each, dict)]
    named = {"composition_scores": {"kind": "k"}, "copying_scores": {"circuit": "ov"}}.get(method, {})
    return [*indices, *{**named, **dict(*(each for each in given if isinstance(each, dict)))}.values()]


def parts_of(method: str, value: Any) -> dict[str, torch.Tensor]:
    """The tensors of a value by their names: those of its parts that are there, or its method's own."""
    if isinstance(value, torch.Tensor):
        return {method: value}
    return {name: tensor for name, tensor in value._asdict().items() if tensor is not None}


def computed(llm: TransparentLlm, method: str, given: Sequence[Any]) -> dict[str, torch.Tensor]:
    """What a client is to answer: an analysis, weights of heads, or a value as its only part."""
    if method in CIRCUITS:
        reads: Any = llm
        value = reads.read_circuits(method, *circuit_arguments(method, given), axes={})
        return parts_of(method, value if isinstance(value, torch.Tensor) else HeadWeights(*value))
    if method not in ANALYSES:
        return {method: getattr(llm, method)(*given)}
    return parts_of(method, ANALYSES[method](llm, *arguments_of(method, given)))


def dims_of_part(method: str, part: str) -> tuple[str, ...]:
    """Names of the axes of one of those tensors."""
    row = METHODS[method]
    if part == method:
        return row.dims or ()
    return next(each.dims for each in row.parts if each.name == part)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
