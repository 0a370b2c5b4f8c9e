"""Checking an index against its axis, with one message for local and remote models.

A negative index counts from the end, as torch has it. This is the one place that says so: models resolve indices
here, and clients name what they keep by the same rule, so that -1 and the last index are one value.
"""

from __future__ import annotations

import operator
from typing import SupportsIndex

from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError
from transparent_llm.quoting import kind_of


def integer(argument: str, got: object) -> int:
    """`got` as an int.

    Raises:
        InvalidRequestError: it is no integer; the message names the argument.
    """
    try:
        return operator.index(got)  # type: ignore[arg-type]  # what it is not for is what is asked here
    except TypeError:
        several = "; for several of them, ask for each: fetch takes a list of reads"
        hint = several if isinstance(got, slice) or (hasattr(got, "__iter__") and not isinstance(got, str)) else ""
        raise InvalidRequestError(
            f"{argument} must be an integer, got {kind_of(got)}{hint}", metadata={"argument": argument}
        ) from None


def counted(index: int, size: int) -> int:
    """The index from the start that a negative one stands for; any other one, and one outside, as it is."""
    return index + size if -size <= index < 0 else index


def checked_index(axis: str, got: SupportsIndex, size: int, n_tokens: int | None = None) -> int:
    """`got` as an int from 0 to `size - 1`.

    Args:
        axis: For messages.
        got: A negative one counts from the end.
        size: Of the axis.
        n_tokens: Where that end is, if it is not that of the axis: a row's last token, which padding follows.

    Raises:
        InvalidRequestError: it is no integer.
        IndexOutOfRangeError: it is outside; the message names axis, size and what was got.
    """
    index, end = integer(axis, got), size if n_tokens is None else n_tokens
    if 0 <= (found := counted(index, end)) < size:
        return found
    valid = f"valid indices are 0 to {size - 1}" if size else "there are none"
    if index < 0 and end:
        valid += f", or -{end} to -1 from the end"
        valid += " of the row's tokens" if end < size else ""
    raise IndexOutOfRangeError(
        f"{axis} {index} is out of range: {valid}",
        metadata={"axis": axis, "size": str(size), "got": str(index)},
    )
