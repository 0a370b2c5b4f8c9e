"""A setting is a field: its name in files, its flag, its default and, in the words under it, what it means."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
from dataclasses import dataclass
from typing import TypeVar, get_type_hints

_T = TypeVar("_T")
_FLAG, _METAVAR = "flag", "metavar"


@dataclass(frozen=True)
class Setting:
    """What is known of one field of a dataclass."""

    name: str
    """In configuration files."""

    kind: object
    """Its type."""

    default: object
    meaning: str
    """In one line; empty where the source of the dataclass is not there to be read."""

    flag: str
    """On the command line."""

    metavar: str | None
    """What stands for its value in help texts, where its type does not tell."""


def setting(default: _T, *, flag: str | None = None, metavar: str | None = None) -> _T:
    """A field whose flag has another name than the field, or whose value has a name in help texts."""
    return dataclasses.field(default=default, metadata={_FLAG: flag, _METAVAR: metavar})


def settings_in(cls: type) -> list[Setting]:
    """All fields of a dataclass, in its order."""
    kinds, meanings = get_type_hints(cls), _meanings(cls)
    return [
        Setting(
            name=field.name,
            kind=kinds[field.name],
            default=field.default,
            meaning=meanings.get(field.name, ""),
            flag=_flag(field.name, field.default, field.metadata.get(_FLAG)),
            metavar=field.metadata.get(_METAVAR),
        )
        for field in dataclasses.fields(cls)
    ]


def _flag(name: str, default: object, told: str | None) -> str:
    return told or f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def _meanings(cls: type) -> dict[str, str]:
    """The words under each field, which Python does not keep."""
    try:
        source = inspect.getsource(cls)
    except OSError:  # modules without their source are no reason not to serve
        return {}
    (body,) = (node.body for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    return {
        field.target.id: " ".join(below.value.value.split())
        for field, below in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    }
