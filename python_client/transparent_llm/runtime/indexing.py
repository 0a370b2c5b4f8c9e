"""Checking an index against its axis, with one message for local and remote models."""

from __future__ import annotations

import operator
from typing import SupportsIndex

from transparent_llm.errors import IndexOutOfRangeError


def checked_index(axis: str, got: SupportsIndex, size: int) -> int:
    """`got` as an int from 0 to `size - 1`.

    Raises:
        IndexOutOfRangeError: it is negative or too large; the message names axis, size and what was got.
    """
    index = operator.index(got)
    if 0 <= index < size:
        return index
    valid = f"valid indices are 0 to {size - 1}" if size else "there are none"
    raise IndexOutOfRangeError(
        f"{axis} {index} is out of range: {valid}",
        metadata={"axis": axis, "size": str(size), "got": str(index)},
    )
