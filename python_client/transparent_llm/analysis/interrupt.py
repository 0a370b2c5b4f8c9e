"""Whether an analysis should go on: asked between the bounded pieces of its work, answered by whoever started it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_check: ContextVar[Callable[[], None] | None] = ContextVar("analysis_check", default=None)


def check() -> None:
    """Call what the innermost `checking` block of this thread or task gives, if there is one; it may raise."""
    if (asked := _check.get()) is not None:
        asked()


@contextmanager
def checking(ask: Callable[[], None]) -> Iterator[None]:
    """Within this block analyses call `ask` between pieces of their work; what it raises ends them."""
    token = _check.set(ask)
    try:
        yield
    finally:
        _check.reset(token)
