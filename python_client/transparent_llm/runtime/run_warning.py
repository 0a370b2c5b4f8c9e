"""Runs that worked and should not be believed without a look."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterable

from transparent_llm.quoting import shown
from transparent_llm.readable_traceback import is_within


class RunWarning(UserWarning):
    """Some values of a run are not what they look like; `warnings()` of the object that ran it says it again."""


class PaddingWarning(UserWarning):
    """A value was read at a position where its row has padding: a number that means nothing."""


def warn_of_run(found: Iterable[str]) -> None:
    """Warn the code that called `run`, as it is written there."""
    for words in found:
        warn(shown(words), RunWarning)


def warn(words: str, category: type[Warning]) -> None:
    """Warn the code that called this project, whatever stands between."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and is_within(frame):
        level, frame = level + 1, frame.f_back
    warnings.warn(words, category, stacklevel=level)
