"""What came from elsewhere, in words of a bounded length: error texts quote it, and it can be megabytes."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

_LONGEST = 100
_MOST_SIZES = 8


def quoted(text: str) -> str:
    """As `repr` has it, cut after about a hundred characters."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}..."


def listed(names: Sequence[object]) -> str:
    """The first few of some sizes or names, in brackets, and that there are more."""
    shown = [name if isinstance(name, int) else quoted(str(name)) for name in islice(names, _MOST_SIZES)]
    more = [f"... {len(names)} in all"] if len(names) > _MOST_SIZES else []
    return f"[{', '.join([*map(str, shown), *more])}]"
