"""What came from elsewhere, made fit to be shown: error texts quote it, it can be megabytes, and terminals obey it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from transparent_llm.scalars import unwrapped

_LONGEST = 100
_MOST_SIZES = 8


def quoted(text: str) -> str:
    """As `repr` has it, truncated after about a hundred characters."""
    return repr(text) if len(text) <= _LONGEST else f"{text[:_LONGEST]!r}..."


def kind_of(value: object) -> str:
    """What somebody gave that cannot be used: its type, and itself where that is short."""
    kind, value = type(value).__name__, unwrapped(value)
    if isinstance(value, str):
        return f"{kind} {quoted(value)}"
    if isinstance(value, int | float | complex):
        return f"{kind} {value!r}"
    shape = getattr(value, "shape", None)
    return kind if shape is None else f"{kind} of shape {listed(tuple(shape))}"


def listed(names: Sequence[object]) -> str:
    """The first few of some sizes or names, in brackets, and that there are more."""
    first = [name if isinstance(name, int) else quoted(str(name)) for name in islice(names, _MOST_SIZES)]
    more = [f"... {len(names)} in all"] if len(names) > _MOST_SIZES else []
    return f"[{', '.join([*map(str, first), *more])}]"


def shown(text: str, *, keeps: str = "", longest: int | None = None) -> str:
    r"""Text with its control, format and other invisible characters written out, as \x1b for the escape character.

    A server's strings can then neither move the cursor nor turn the line around.

    Args:
        keeps: Characters that stay as they are all the same.
        longest: Of longer text so many characters are shown. None: all.
    """
    start = text if longest is None or len(text) <= longest else f"{text[:longest]}... ({len(text)} characters)"
    if start.isprintable():
        return start
    return "".join(sign if sign.isprintable() or sign in keeps else repr(sign)[1:-1] for sign in start)
