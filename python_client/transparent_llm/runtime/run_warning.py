"""Runs that worked and should not be believed without a look."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from transparent_llm.quoting import shown


class RunWarning(UserWarning):
    """Some values of a run are not what they look like; `warnings()` of the object that ran it says it again."""


def warn_of_run(found: Iterable[str]) -> None:
    """Warn the code that called the method that called this one's caller: of `run`, as it is written there. Between
    them is what shortens its tracebacks."""
    for words in found:
        warnings.warn(shown(words), RunWarning, stacklevel=5)
