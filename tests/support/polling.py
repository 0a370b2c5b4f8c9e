"""Waiting for what another thread or process will do."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from support.engines import SOON


def wait_until(condition: Callable[[], object], within_s: float = SOON) -> None:
    """Return as soon as it holds; fail if it never does."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "this never came"
        threading.Event().wait(0.02)
