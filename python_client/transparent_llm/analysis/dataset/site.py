"""What is read of each sentence: a method of the contract with its arguments, less the row and the position, which the
data set has."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, get_type_hints

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted
from transparent_llm.runtime.indexing import integer

ReadSpec = str | tuple[Any, ...]
"""("residual_out", 5), "logits", ("neuron_activations", 5), ("attention_output", 5, 3)."""

_PLACE = ("batch_i", "pos")


@dataclass(frozen=True)
class Site:
    """One read."""

    method: str
    arguments: tuple[int, ...]
    """Of the method, less `batch_i` and `pos`."""

    is_of_place: bool
    """The method takes a row and a position, and its value is of that place; otherwise the value has these as axes."""

    @classmethod
    def of(cls, read: ReadSpec) -> Site:
        """As a caller writes it.

        Raises:
            InvalidRequestError: there is no such method of a position, or it takes other arguments.
        """
        name, *given = (read,) if isinstance(read, str) else read if isinstance(read, tuple) and read else (None,)
        methods = _methods()
        if not isinstance(name, str) or name not in methods:
            raise InvalidRequestError(
                f"{quoted(repr(read))} is no value of a position; read a method name, or a tuple of it and its "
                f"arguments less batch_i and pos, of {', '.join(sorted(methods))}"
            )
        least, names = methods[name]
        if not least <= len(given) <= len(names):
            raise InvalidRequestError(
                f"{name} takes {', '.join(names) or 'no argument'} here (each row and position is of the data set); "
                f"got {len(given)} arguments"
            )
        arguments = tuple(integer(argument, value) for argument, value in zip(names, given, strict=False))
        return cls(name, arguments, _is_of_place(name))

    @property
    def name(self) -> str:
        """Of its tensor, such as residual_out.5."""
        return ".".join(map(str, (self.method, *self.arguments)))

    def at(self, row: int, pos: int) -> tuple[int, ...]:
        """All arguments of a method of places."""
        here, others = {"batch_i": row, "pos": pos}, iter(self.arguments)
        named = [here.get(name) if name in here else next(others, None) for name in _parameters(self.method)]
        return tuple(argument for argument in named if argument is not None)


def sites(read: ReadSpec | Sequence[ReadSpec]) -> tuple[tuple[Site, ...], bool]:
    """One read or a list of them, and whether it was one.

    Raises:
        InvalidRequestError: none, one that cannot be read, or one that is there twice.
    """
    is_one = not isinstance(read, list)
    found = tuple(Site.of(one) for one in ([read] if is_one else read))  # type: ignore[arg-type]  # a list, or one
    names = [site.name for site in found]
    if not names or len({*names}) < len(names):
        raise InvalidRequestError(f"reads must be a list of different ones, got {', '.join(names) or 'none'}")
    return found, is_one


@cache
def _methods() -> dict[str, tuple[int, list[str]]]:
    """Of the contract, those whose value is of positions: how many arguments they must have, and their names."""
    found = {}
    for name, function in inspect.getmembers(TransparentLlm, inspect.isfunction):
        if name.startswith("_"):
            continue
        if _is_of_place(name) or _axes(name)[:2] == ["batch", "pos"]:
            parameters = inspect.signature(function).parameters
            names = [given for given in _parameters(name) if given not in _PLACE]
            least = sum(parameters[given].default is inspect.Parameter.empty for given in names)
            found[name] = (least, names)
    return found


def _is_of_place(method: str) -> bool:
    return {*_PLACE} <= {*_parameters(method)} and bool(_axes(method))


def _parameters(method: str) -> list[str]:
    return list(inspect.signature(getattr(TransparentLlm, method)).parameters)[1:]


def _axes(method: str) -> list[str]:
    """Of the floating tensor that it returns, as its annotation has them; none, if it returns something else."""
    kind: Any = get_type_hints(getattr(TransparentLlm, method)).get("return")
    return str(kind.dim_str).split() if "float32" in getattr(kind, "dtypes", ()) else []
