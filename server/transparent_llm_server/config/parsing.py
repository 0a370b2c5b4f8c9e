"""Values as flags and TOML files have them, in the types of the fields that they are for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config import trusted_files

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def settings_of(path: Path) -> dict[str, object]:
    """What a configuration file (TOML) sets: the names are those of `ServerConfig`.

    Raises:
        InvalidRequestError: it is not there, is no TOML, or everybody may change it.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:  # which only servers have, and flags are told of by every command
        import tomli as tomllib

    try:
        settings: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"cannot read the configuration {path}: {error}") from error
    if path.is_file():  # and no pipe of a shell
        trusted_files.require_not_everybodys(path, path.stat())
    return settings


def require_known(settings: Mapping[str, object], cls: type, of: str = "") -> dict[str, object]:
    """The types of the fields of a dataclass by their names, after every setting was found among them.

    Raises:
        InvalidRequestError: there is no such field.
    """
    kinds: dict[str, object] = get_type_hints(cls)
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        whose = f" of {of}" if of else ""
        raise InvalidRequestError(f"unknown setting {', '.join(unknown)}{whose}; known are {', '.join(sorted(kinds))}")
    return kinds


def choices_of(kind: object) -> tuple[str, ...]:
    """The words that a field takes, if it takes only some."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return tuple(DTYPES) if torch.dtype in _alternatives(kind) else ()


def typed(name: str, value: object, kind: object) -> object:
    """A value in the type of its field.

    Raises:
        InvalidRequestError: it is of another type, or none of the words that there are.
    """
    if get_origin(kind) is tuple:
        return _names(name, value)
    kinds = _alternatives(kind)
    if torch.dtype in kinds and isinstance(value, str) and value in DTYPES:
        return DTYPES[value]
    if Path in kinds and isinstance(value, str | Path):
        return Path(value)
    if float in kinds and type(value) is int:
        return float(value)
    wanted = value if get_origin(kind) is Literal else type(value)
    if wanted not in kinds:
        raise InvalidRequestError(f"{name} is {value!r}: it must be {_wanted(kinds)}")
    return value


def _names(place: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(name, str) and name for name in value):
        raise InvalidRequestError(f'{place} is {value!r}: it must be a list like ["NAME", "NAME"]')
    return tuple(value)


def _alternatives(kind: object) -> tuple[object, ...]:
    """The types of a union, or the words of a `Literal`."""
    return get_args(kind) or (kind,)


def _wanted(kinds: tuple[object, ...]) -> str:
    words: dict[object, str] = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "the name of a file",
        torch.dtype: f"one of {', '.join(DTYPES)}",
    }
    named = [kind if isinstance(kind, str) else words.get(kind) for kind in kinds]
    return " or ".join(name for name in named if name is not None)
