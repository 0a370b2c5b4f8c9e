"""Which elements an edit has: rows and positions, counted from the beginning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.interventions import Intervention
from transparent_llm.runtime.indexing import checked_index

MOST_PLACES = 2**18
"""Positions of rows that the edits of one run may select together, each as often as an edit does."""


@dataclass(frozen=True)
class Selection:
    """The places of one edit, row by row, as many entries in each list."""

    rows: tuple[int, ...]
    positions: tuple[int, ...]

    nth_row: tuple[int, ...]
    """Of each place, which of the edit's rows it is in."""

    nth_position: tuple[int, ...]
    """Of each place, which of the edit's positions it is; only where these are a list."""


def require_few_places(edits: Sequence[Intervention], lengths: Sequence[int]) -> None:
    """Refuse edits that together select more than `MOST_PLACES`, before any is looked at closer.

    Raises:
        TooLargeError: with the numbers.
    """
    count = sum(n_places(edit, lengths) for edit in edits)
    if count > MOST_PLACES:
        raise TooLargeError(
            f"these edits select {count} positions of rows together, at most {MOST_PLACES} can be edited in one run",
            metadata={"needed": str(count), "allowed": str(MOST_PLACES)},
        )


def n_places(edit: Intervention, lengths: Sequence[int]) -> int:
    """About how many an edit selects, and not fewer; quickly."""
    n_rows = len(lengths) if edit.rows == "all" else len(edit.rows)
    if edit.positions == "all":
        return sum(lengths) if edit.rows == "all" else n_rows * max(lengths, default=0)
    return n_rows * (1 if edit.positions == "last" else len(edit.positions))


def select(edit: Intervention, lengths: Sequence[int]) -> Selection:
    """The places of an edit in rows of so many tokens.

    Raises:
        IndexOutOfRangeError: a row or position that is not there, or is padding; the message says which are.
        InvalidRequestError: there are none.
    """
    rows = range(len(lengths)) if edit.rows == "all" else [checked_index("row", r, len(lengths)) for r in edit.rows]
    found: list[tuple[int, int, int, int]] = []
    for n_row, row in enumerate(rows):
        for n_position, position in enumerate(_positions(edit, lengths[row])):
            found.append((row, position, n_row, n_position))
    if not found:
        raise InvalidRequestError(f"{edit} selects nothing")
    if len({place[:2] for place in found}) != len(found):
        raise InvalidRequestError(f"{edit} names a row or position twice, one of them counted from the end")
    return Selection(*(tuple(column) for column in zip(*found, strict=True)))


def _positions(edit: Intervention, length: int) -> Sequence[int]:
    if edit.positions == "all":
        return range(length)
    if edit.positions == "last":
        return [length - 1]
    return [checked_index("position", position, length) for position in edit.positions]
