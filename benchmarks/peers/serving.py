"""A server process whose models are on the benchmark's device."""

from __future__ import annotations

from contextlib import AbstractContextManager

from peers import device
from transparent_llm import demo


def server_process(*arguments: str) -> AbstractContextManager[str]:
    """As `demo.server_process`; a `--device` among the arguments counts instead."""
    return demo.server_process("--device", str(device.chosen()), *arguments)


def paged_server_process(*arguments: str) -> AbstractContextManager[tuple[str, str]]:
    """As `demo.paged_server_process`, on that device too."""
    return demo.paged_server_process("--device", str(device.chosen()), *arguments)
