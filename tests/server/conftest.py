"""Fixtures of the server's tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed because nobody holds it: device memory does not wake the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
