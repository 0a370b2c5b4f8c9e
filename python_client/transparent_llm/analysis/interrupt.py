"""Letting go of a long analysis: it asks between its steps whether it may go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _go_on() -> None:
    pass


_check: ContextVar[Callable[[], None]] = ContextVar("check", default=_go_on)


def check() -> None:
    """Called between the steps of an analysis; raises where it is not to go on."""
    _check.get()()


@contextmanager
def checking(callable: Callable[[], None]) -> Iterator[None]:
    """Within this block, `check` calls this, which raises what is to end an analysis."""
    token = _check.set(callable)
    try:
        yield
    finally:
        _check.reset(token)
