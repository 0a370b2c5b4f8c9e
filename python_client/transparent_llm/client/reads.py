"""Reads: methods with their indices, and what comes for each of them."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import SupportsIndex, TypeVar, cast

from transparent_llm.client.read_ahead import Indices
from transparent_llm.errors import InternalError, InvalidRequestError
from transparent_llm.wire.expected import FACTORS
from transparent_llm.wire.methods import METHODS

Read = tuple[str, Indices]
"""A method and its indices."""

ReadSpec = str | tuple[str | SupportsIndex | None, ...]
"""A read as a caller of `fetch` writes it: "logits", or ("residual_in", 3)."""

Arguments = tuple["SupportsIndex | None", ...]
"""Of a method, in its order, as a caller writes them; None for one that is left out."""

WHOLE = "value"
"""The name of what comes for a read, if it is not factors."""

INTEGERS = frozenset({"tokens"})
"""What has no floating type."""

_FACTORS = {name: tuple(kind.name for kind in kinds if not kind.optional) for name, kinds in FACTORS.items()}
"""Those that a product always has, in the order in which they come."""

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
    """The tensors of a stream, read by read: each begins with a value or with its first factor."""
    groups: list[tuple[str, dict[str, _Part]]] = []
    for full_name, tensor in arrived:
        name, _, factor = full_name.partition(".")
        if not factor or (name in _FACTORS and factor == _FACTORS[name][0]):
            groups.append((name, {}))
        elif not groups or groups[-1][0] != name:
            raise InternalError(f"the server sent {full_name!r} without the factors before it")
        groups[-1][1][factor or WHOLE] = tensor
    if [name for name, _ in groups] != list(names):
        raise InternalError(f"the server sent {len(groups)} values, not the {len(names)} that were asked for")
    for name, named in groups:
        if WHOLE not in named and not named.keys() >= set(_FACTORS[name]):
            raise InternalError(f"the server sent {', '.join(named)} of {name}, which do not make up a value")
    return [named for _, named in groups]
