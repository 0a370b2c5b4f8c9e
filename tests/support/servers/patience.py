"""How long a client waits, changed once it is connected: what is put to the test, and not what comes before it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from transparent_llm import RemoteTransparentLlm


@contextmanager
def waiting(llm: RemoteTransparentLlm, *, timeout_s: float) -> Iterator[None]:
    """Within this block `timeout_s` is another one."""
    before = llm._calls.config
    llm._calls.config = replace(before, timeout_s=timeout_s)
    try:
        yield
    finally:
        llm._calls.config = before
