"""How long a client waits, changed once it is connected: what is put to the test, and not what comes before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from transparent_llm import RemoteTransparentLlm


@contextmanager
def waiting(llm: RemoteTransparentLlm, **seconds: float) -> Iterator[None]:
    """Within this block `timeout_s` or `reconnect_s` are others."""
    before = llm._calls.config
    llm._calls.config = replace(before, **seconds)  # type: ignore[arg-type]  # of the settings only numbers are named
    try:
        yield
    finally:
        llm._calls.config = before
