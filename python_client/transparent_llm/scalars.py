"""Single values and lists of them, where numpy and torch have both in one type."""

from __future__ import annotations

from collections.abc import Iterable


def is_one(given: object) -> bool:
    """Whether it is one value, and no list of them: a tensor or an array without axes is one, as is a text."""
    return isinstance(given, str) or not isinstance(given, Iterable) or getattr(given, "shape", None) == ()


def unwrapped(given: object) -> object:
    """The number that a tensor or an array without axes holds; anything else as it is, as what holds no number."""
    if getattr(given, "shape", None) != () or not hasattr(given, "item") or getattr(given, "is_meta", False):
        return given
    held = given.item()
    return held if isinstance(held, int | float | complex) else given
