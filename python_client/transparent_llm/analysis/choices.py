"""Arguments that are one of some words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted

_Choice = TypeVar("_Choice", bound=str)


def checked_choice(argument: str, got: _Choice, choices: Sequence[str]) -> _Choice:
    """One of the choices.

    Raises:
        InvalidRequestError: it is none; the message names them.
    """
    if got not in choices:
        known = ", ".join(f'"{each}"' for each in choices)
        raise InvalidRequestError(f"{argument} must be one of {known}, got {quoted(str(got))}")
    return got
