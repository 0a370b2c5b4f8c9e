"""Numbers as people give them: Python's own, numpy's, and those of tensors without axes."""

from __future__ import annotations

import math
from contextlib import suppress
from numbers import Real

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of
from transparent_llm.scalars import unwrapped


def finite_number(argument: str, got: object) -> float:
    """`got` as a float.

    Raises:
        InvalidRequestError: it is no number, or no finite one; the message names the argument.
    """
    given, number = unwrapped(got), math.nan
    if isinstance(given, Real) and not isinstance(given, bool):
        with suppress(OverflowError):  # as of 10**400
            number = float(given)
    if not math.isfinite(number):
        raise InvalidRequestError(
            f"{argument} must be a finite number, got {kind_of(got)}", metadata={"argument": argument}
        )
    return number
