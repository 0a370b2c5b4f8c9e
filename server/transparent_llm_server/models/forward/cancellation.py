"""Whether anybody still waits for what is computed now; a forward pass looks at every layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class AbandonedError(Exception):
    """Nobody waits any more: what was computed so far is thrown away."""


_is_wanted: ContextVar[Callable[[], bool] | None] = ContextVar("is_wanted", default=None)


@contextmanager
def cancellable(is_wanted: Callable[[], bool]) -> Iterator[None]:
    """Within this block, work on this thread goes on only while `is_wanted` says so, and that of a block around it.

    It may raise, which ends the work with that error.
    """
    around = _is_wanted.get()
    token = _is_wanted.set(is_wanted if around is None else lambda: around() and is_wanted())
    try:
        yield
    finally:
        _is_wanted.reset(token)


def raise_if_cancelled(*_: object) -> None:
    """A place where work may stop; takes any arguments, so that it can be a hook.

    Raises:
        AbandonedError: nobody waits for it.
        UnavailableError: DRAINING: the server ends.
    """
    is_wanted = _is_wanted.get()
    if is_wanted is not None and not is_wanted():
        raise AbandonedError
