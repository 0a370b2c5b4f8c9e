"""Reads: methods with their indices, and what comes for each of them."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, SupportsIndex, TypeVar, cast, get_type_hints

import torch

from transparent_llm.client.read_ahead import Indices
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InternalError, InvalidRequestError
from transparent_llm.wire.methods import METHODS, Method

Read = tuple[str, Indices]
"""A method and its indices."""

ReadSpec = str | tuple[str | SupportsIndex | None, ...]
"""A read as a caller of `fetch` writes it: "logits", or ("residual_in", 3)."""

Arguments = tuple["SupportsIndex | None", ...]
"""Of a method, in its order, as a caller writes them; None for one that is left out."""

WHOLE = "value"
"""The name of what comes for a read, if it is one tensor."""

Result = torch.Tensor | Any
"""What a method returns: a tensor, or the named tuple of several that the class says."""

_Part = TypeVar("_Part")  # a tensor, or what is known of it


def as_read(read: ReadSpec) -> tuple[str, Arguments]:
    """The method that a caller names, and the arguments as they stand there.

    Raises:
        InvalidRequestError: it is neither.
    """
    if isinstance(read, str):
        return read, ()
    if not isinstance(read, tuple) or not read or not isinstance(read[0], str):
        raise InvalidRequestError(f"fetch takes method names, or tuples of a name and its arguments, got {read!r}")
    return read[0], cast(Arguments, read[1:])


def integers(name: str, indices: Sequence[SupportsIndex | None]) -> Indices:
    """All indices of a method; None for those that are left out.

    Raises:
        InvalidRequestError: there is no such method, or it has fewer arguments.
    """
    if name not in METHODS or len(indices) > len(METHODS[name].arguments):
        raise InvalidRequestError(f"there is no {name}{tuple(indices)} to read")
    given = tuple(None if index is None else operator.index(index) for index in indices)
    return given + (None,) * (len(METHODS[name].arguments) - len(given))


def grouped(names: Sequence[str], arrived: Sequence[tuple[str, _Part]]) -> list[dict[str, _Part]]:
    """The tensors of a stream, read by read: each begins with a value or with its first part."""
    groups: list[tuple[str, dict[str, _Part]]] = []
    for full_name, tensor in arrived:
        name, _, part = full_name.partition(".")
        if not part or (name in METHODS and METHODS[name].begins_with(part)):
            groups.append((name, {}))
        elif not groups or groups[-1][0] != name:
            raise InternalError(f"the server sent {full_name!r} without the factors before it")
        groups[-1][1][part or WHOLE] = tensor
    if [name for name, _ in groups] != list(names):
        raise InternalError(f"the server sent {len(groups)} values, not the {len(names)} that were asked for")
    for name, named in groups:
        if WHOLE not in named and not METHODS[name].can_be(named):
            raise InternalError(f"the server sent {', '.join(named)} of {name}, which do not make up a value")
    return [named for _, named in groups]


def of_parts(method: Method, named: Mapping[str, torch.Tensor]) -> Result:
    """What a method returns whose value is several tensors; None stands for one that is absent.

    Raises:
        InternalError: axes of the same name differ in length.
    """
    parts, lengths = method.parts, dict[str, int]()
    for part in parts:
        if part.name in named and not part.sparse:
            for axis, n in zip(part.dims, named[part.name].shape, strict=False):  # an optional one may be a scalar
                if lengths.setdefault(axis, n) != n:
                    raise InternalError(f"the server sent {method.name} with {lengths[axis]} and with {n} of {axis}")
    return _named_tuple(method.name)(*(named.get(part.name) for part in parts))


def each(several: Result, change: Callable[[torch.Tensor], torch.Tensor]) -> Result:
    """The same named tuple with all of its tensors changed."""
    return type(several)(*(None if tensor is None else change(tensor) for tensor in several))


@cache
def _named_tuple(name: str) -> Callable[..., Result]:
    """That the class says a method returns."""
    kind: Callable[..., Result] = get_type_hints(getattr(TransparentLlm, name))["return"]
    return kind
