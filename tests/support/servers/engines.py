"""The model thread, held at work by a test."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from transparent_llm_server.scheduling.engine import Engine

SOON = 30.0
"""Seconds that nothing here needs; only a test that fails waits for so long."""


@contextmanager
def held(engine: Engine) -> Iterator[Future[bool]]:
    """The model thread is at work until the block ends."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go_on.wait(SOON)

    future = engine.submit(work)
    assert begun.wait(SOON)
    try:
        yield future
    finally:
        go_on.set()
