"""How many of the largest or smallest are wanted: as many come, so no more can be asked for than there are."""

from __future__ import annotations

from transparent_llm.errors import InvalidRequestError
from transparent_llm.runtime.indexing import integer


def checked_count(argument: str, got: object, most: int, of: str, least: int = 1) -> int:
    """The number as an int.

    Raises:
        InvalidRequestError: it is none, or not from `least` to `most`, of which the message says what they are.
    """
    count = integer(argument, got)
    if not least <= count <= most:
        raise InvalidRequestError(
            f"{argument} must be {least} to {most}, the number of {of}, got {count}",
            metadata={"argument": argument, "got": str(count), "allowed": str(most)},
        )
    return count
