"""Single numbers as people give them: Python's own, numpy's, and those of tensors without axes."""

from __future__ import annotations

import math
from collections.abc import Iterable

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of


def is_one(given: object) -> bool:
    """Whether it is one value, and no list of them: a tensor or an array without axes is one, as is a text."""
    return isinstance(given, str) or not isinstance(given, Iterable) or getattr(given, "shape", None) == ()


def finite_number(argument: str, got: object) -> float:
    """`got` as a float.

    Raises:
        InvalidRequestError: it is no number, or no finite one; the message names the argument.
    """
    if is_one(got) and hasattr(got, "__float__") and not isinstance(got, bool):
        try:
            number = float(got)
        except (OverflowError, TypeError):  # as of 10**400, and of complex tensors
            number = math.nan
        if math.isfinite(number):
            return number
    raise InvalidRequestError(
        f"{argument} must be a finite number, got {kind_of(got)}", metadata={"argument": argument}
    )
