"""Reads: methods with their arguments, and what comes for each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from itertools import zip_longest
from typing import Any, SupportsIndex, TypeVar, cast, get_type_hints

import torch

from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.client.read_ahead import Indices
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InternalError, InvalidRequestError
from transparent_llm.quoting import kind_of, quoted
from transparent_llm.runtime.indexing import integer
from transparent_llm.wire.fetch import FETCHED_METHODS
from transparent_llm.wire.methods import METHODS, Method
from transparent_llm.wire.parameters import Argument

Read = tuple[str, tuple[Argument, ...]]
"""A method and its arguments: indices, then parameters."""

Parts = Mapping[str, slice]
"""Of axes, by their names."""

ReadSpec = str | tuple["str | SupportsIndex | float | Sequence[SupportsIndex] | Parts | None", ...]
"""A read as a caller of `fetch` writes it: "logits", or ("residual_in", 3); perhaps with the parts of axes that are
wanted of it, ("residual_in", 3, {"pos": slice(-1, None)})."""

Arguments = Sequence["str | SupportsIndex | float | Sequence[SupportsIndex] | None"]
"""Of a method, in its order, as a caller writes them; None for one that is left out."""

WHOLE = "value"
"""The name of what comes for a read, if it is one tensor."""

Result = torch.Tensor | Any
"""What a method returns: a tensor, or the named tuple of several that the class says."""

_Part = TypeVar("_Part")  # a tensor, or what is known of it


def as_reads(reads: Sequence[ReadSpec]) -> list[tuple[str, Arguments, Parts]]:
    """The methods that a caller names, their arguments as they stand there, and the parts of axes that are wanted.

    Raises:
        InvalidRequestError: something else than a list of method names, and tuples of a name and its arguments.
    """
    if isinstance(reads, str):
        raise InvalidRequestError(f"this takes a list of reads, got one: write [{quoted(reads)}]")
    if not isinstance(reads, Iterable):
        raise InvalidRequestError(f"this takes a list of reads, got {kind_of(reads)}")
    if isinstance(reads, tuple) and len(reads) > 1 and isinstance(reads[0], str) and not _is_read(reads[1]):
        raise InvalidRequestError(f"this takes a list of reads, got one: write [({quoted(reads[0])}, ...)]")
    return [_as_read(read) for read in reads]


def _is_read(read: object) -> bool:
    return isinstance(read, str | tuple)


def _as_read(read: ReadSpec) -> tuple[str, Arguments, Parts]:
    if isinstance(read, str):
        return read, (), {}
    if not isinstance(read, tuple) or not read or not isinstance(read[0], str):
        raise InvalidRequestError(
            f"fetch takes method names, or tuples of a name and its arguments, got {quoted(repr(read))}"
        )
    _, *arguments = read
    parts = arguments.pop() if arguments and isinstance(arguments[-1], Mapping) else {}
    return read[0], cast(Arguments, tuple(arguments)), cast(Parts, parts)


def checked(name: str, arguments: Arguments) -> tuple[Indices, tuple[Argument, ...]]:
    """All indices of a method, None for those that are left out, and all parameters.

    Raises:
        InvalidRequestError: it cannot be read, or has fewer arguments, or one of these is none that it can be.
        TooLargeError: a parameter is a list that no request holds.
    """
    if name not in METHODS or (arguments and not METHODS[name].arguments and name not in FETCHED_METHODS):
        raise not_fetched(name)
    method = METHODS[name]
    if len(arguments) > len(method.argument_names):
        taken = ", ".join(method.argument_names) or "no argument"
        raise InvalidRequestError(f"{name} takes {taken}; got {len(arguments)} arguments")
    n = len(method.arguments)
    named = zip(method.arguments, arguments[:n], strict=False)
    indices = tuple(None if index is None else integer(argument, index) for argument, index in named)
    given = zip_longest(method.parameters, arguments[n:])
    parameters = tuple(each.default if got is None else each.checked(name, got) for each, got in given)
    return indices + (None,) * (n - len(indices)), parameters


def not_fetched(name: str) -> InvalidRequestError:
    """The error for what is no read of a run."""
    hint = "; call it by itself" if name in METHODS and METHODS[name].of_class else ""
    return InvalidRequestError(
        f"{quoted(name)} cannot be fetched{hint}; these can: {', '.join(sorted(FETCHED_METHODS))}"
    )


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
    asked = ANALYSES[name] if name in ANALYSES else getattr(TransparentLlm, name)
    kind: Callable[..., Result] = get_type_hints(asked)["return"]
    return kind
