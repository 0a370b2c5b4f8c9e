"""Values as flags and TOML files have them, in the types of the fields that they are for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config import trusted_files

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def settings_of(path: Path) -> dict[str, object]:
    """What a configuration file (TOML) sets: the names are those of `ServerConfig`.

    Raises:
        InvalidRequestError: it is not there, is no TOML, or everybody may change it.
    """
    try:
        settings: dict[str, object] = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRequestError(f"cannot read the configuration {path}: {error}") from error
    if path.is_file():  # and no pipe of a shell
        trusted_files.require_not_everybodys(path, path.stat())
    return settings


def require_known(settings: Mapping[str, object], cls: type, of: str = "") -> dict[str, Any]:
    """The types of the fields of a dataclass by their names, after every setting was found among them.

    Raises:
        InvalidRequestError: there is no such field.
    """
    kinds = get_type_hints(cls)
    unknown = sorted(set(settings) - set(kinds))
    if unknown:
        whose = f" of {of}" if of else ""
        raise InvalidRequestError(f"unknown setting {', '.join(unknown)}{whose}; known are {', '.join(sorted(kinds))}")
    return kinds


def typed(name: str, value: object, kind: Any, words: str | None = None) -> Any:
    """A value in the type of its field; `words` say what it must be, where the type alone does not.

    Raises:
        InvalidRequestError: it is of another type.
    """
    kinds = get_args(kind) or (kind,)
    if torch.dtype in kinds and value in DTYPES:
        return DTYPES[str(value)]
    if Path in kinds and isinstance(value, str | Path):
        return Path(value)
    if float in kinds and type(value) is int:
        return float(value)
    if type(value) not in kinds:
        raise InvalidRequestError(f"{name} is {value!r}: it must be {words or _wanted(kinds)}")
    return value


def _wanted(kinds: tuple[type, ...]) -> str:
    words = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        str: "text",
        Path: "the name of a file",
        torch.dtype: f"one of {', '.join(DTYPES)}",
    }
    return " or ".join(words[kind] for kind in kinds if kind in words)
