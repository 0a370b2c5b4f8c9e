"""Waiting for what another thread or process will do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from support.servers.engines import SOON

_Found = TypeVar("_Found")


def wait_until(condition: Callable[[], object], within_s: float = SOON) -> None:
    """Return as soon as it holds; fail if it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "this never came"
        threading.Event().wait(0.02)


def wait_for(found: Callable[[], _Found], wanted: _Found, what: str) -> None:
    """Return as soon as this is found; fail with what was found last."""
    last: list[_Found] = []

    def is_there() -> bool:
        last[:] = [found()]
        return last == [wanted]

    try:
        wait_until(is_there)
    except AssertionError:
        raise AssertionError(f"{what} is {last[0]}, not {wanted}") from None
