"""Long work asks between its pieces whether it should end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


def _go_on() -> None:
    """Nobody wants to be asked."""


_check: ContextVar[Callable[[], None]] = ContextVar("check", default=_go_on)


def check() -> None:
    """Between two pieces of work: raises what the callable of `checking` raises, if it does."""
    _check.get()()


@contextmanager
def checking(callable_: Callable[[], None]) -> Iterator[None]:
    """Within this block `check` calls it."""
    token = _check.set(callable_)
    try:
        yield
    finally:
        _check.reset(token)
