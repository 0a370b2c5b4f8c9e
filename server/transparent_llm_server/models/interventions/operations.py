"""The operations as functions of elements x [n d]: see `transparent_llm.interventions.operation` for what each is."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Intervention
from transparent_llm.interventions.operation import (
    Add,
    Clamp,
    ClampFeature,
    Freeze,
    Mean,
    Noise,
    Patch,
    Project,
    Scale,
    SetTo,
    Swap,
)
from transparent_llm.interventions.site import Site
from transparent_llm.interventions.vector import Vector
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.interventions.edit import Function
from transparent_llm_server.models.interventions.noise import normal
from transparent_llm_server.models.interventions.selection import Selection
from transparent_llm_server.models.interventions.sources import Sources


def function_of(edit: Intervention, site: Site, selected: Selection, sources: Sources) -> Function:
    """What an edit does to the elements that it selects, its sources looked up now.

    Raises:
        InvalidRequestError: a source of another model, or a direction without length.
        IndexOutOfRangeError: what it is to be taken from is not there.
    """
    operation = edit.operation
    if isinstance(operation, Scale):
        return partial(torch.mul, other=operation.factor)
    if isinstance(operation, Add):
        return partial(_added, sources.vector(operation.vector), operation.factor, operation.relative)
    if isinstance(operation, SetTo):
        return partial(_set, sources.vector(operation.vector))
    if isinstance(operation, Mean):
        return partial(_set, sources.mean(site, operation.source))
    if isinstance(operation, Patch):
        return partial(_set, _patched(operation, site, selected, sources))
    if isinstance(operation, Freeze):
        assert operation.source is not None  # by now it is known
        return partial(_set, _patched(Patch(operation.source, None, None), site, selected, sources))
    if isinstance(operation, Project):
        return partial(_projected, _unit(operation.vector, sources), operation.factor)
    if isinstance(operation, Clamp):
        return partial(_clamped, _unit(operation.vector, sources), operation.least, operation.most)
    if isinstance(operation, ClampFeature):
        return partial(sources.feature_of(operation.feature, edit.site), operation.least, operation.most)
    if isinstance(operation, Swap):
        return partial(_swapped, _unit(operation.origin, sources), _unit(operation.target, sources))
    assert isinstance(operation, Noise)
    return partial(_noisy, operation.sd, operation.seed, site, selected)


def _patched(operation: Patch, site: Site, selected: Selection, sources: Sources) -> torch.Tensor:
    values = sources.values(operation.source)
    rows = _mapped(operation.rows, selected.nth_row, selected.rows)
    positions = _mapped(operation.positions, selected.nth_position, selected.positions)
    places = [values.place(row, position) for row, position in zip(rows, positions, strict=True)]
    return wide(sources.at(site, values, [row for row, _ in places], [position for _, position in places]))


def _mapped(given: tuple[int, ...] | None, nth: Sequence[int], same: Sequence[int]) -> Sequence[int]:
    return same if given is None else [given[n] for n in nth]


def _unit(vector: Vector, sources: Sources) -> torch.Tensor:
    return _normed(sources.vector(vector))


def _normed(vector: torch.Tensor) -> torch.Tensor:
    norm = vector.norm(dim=-1, keepdim=True)
    if not bool((norm > 0).all()):
        raise InvalidRequestError("a direction has no length: its vector is zero")
    unit: torch.Tensor = vector / norm
    return unit


def _fitting(vector: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    if vector.shape not in (x.shape, x.shape[1:]):
        raise InvalidRequestError(
            f"a vector of shape {list(vector.shape)} where {x.shape[0]} positions of {x.shape[1]} elements change: "
            f"it must be [{x.shape[1]}], or [{x.shape[0]} {x.shape[1]}] with a row for each"
        )
    return vector.to(x.device, x.dtype)


def _added(vector: torch.Tensor, factor: float, relative: bool, x: torch.Tensor) -> torch.Tensor:
    fitting = _fitting(vector, x)
    if not relative:
        return x + factor * fitting
    added: torch.Tensor = factor * x.norm(dim=-1, keepdim=True) * _normed(fitting)
    return x + added


def _set(vector: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return _fitting(vector, x).expand_as(x)


def _projected(unit: torch.Tensor, factor: float, x: torch.Tensor) -> torch.Tensor:
    direction = _fitting(unit, x)
    along = (x * direction).sum(dim=-1, keepdim=True)
    return x if factor == 1.0 else x + (factor - 1.0) * along * direction


def _clamped(unit: torch.Tensor, least: float, most: float, x: torch.Tensor) -> torch.Tensor:
    direction = _fitting(unit, x)
    along = (x * direction).sum(dim=-1, keepdim=True)
    return torch.where((along < least) | (along > most), x + (along.clamp(least, most) - along) * direction, x)


def _swapped(origin: torch.Tensor, target: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    one, other = _fitting(origin, x), _fitting(target, x)
    along = (x * one).sum(dim=-1, keepdim=True)
    return x - along * one + along * other


def _noisy(sd: float, seed: int, site: Site, selected: Selection, x: torch.Tensor) -> torch.Tensor:
    """Drawn on the CPU, so that the device does not decide."""
    elements = range(x.shape[1]) if site.neurons is None else site.neurons
    drawn = normal(seed, f"{site.kind.value}/{site.layer}/{site.head}", selected.rows, selected.positions, elements)
    return x + sd * drawn.to(x.device, x.dtype)
