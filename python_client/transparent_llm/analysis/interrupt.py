"""Long computations that can be stopped: they look up between their pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_look: ContextVar[Callable[[], None] | None] = ContextVar("look", default=None)


def check() -> None:
    """To be called between pieces; raises what the one who waits wants raised, if nobody waits any more."""
    look = _look.get()
    if look is not None:
        look()


@contextmanager
def checking(look: Callable[[], None]) -> Iterator[None]:
    """Within this block `check` calls `look`."""
    token = _look.set(look)
    try:
        yield
    finally:
        _look.reset(token)
