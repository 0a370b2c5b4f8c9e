"""How far a transfer is: a bar for those that take long enough to wonder about, or the caller's own function."""

from __future__ import annotations

import sys
from collections.abc import Callable

from tqdm.auto import tqdm

SHOWN_AFTER_S = 0.5

Report = Callable[[str, int, int], None]
"""Called with the RPC's name, the bytes that have come, and all of them, after each message of a transfer. What is read
ahead is reported too, from the thread that reads it."""


class Meter:
    """How far one transfer is.

    Args:
        name: Of the RPC.
        wanted: Who is told: the caller's function; or a bar (True), nobody (False), a bar if someone watches (None).
    """

    def __init__(self, name: str, wanted: bool | Report | None) -> None:
        self._name = name
        self._wanted = wanted
        self._bar: tqdm | None = None  # type: ignore[type-arg]

    def show(self, received: int, total: int) -> None:
        """So much has come. What comes in one message has no bar."""
        if callable(self._wanted):
            self._wanted(self._name, received, total)
            return
        if self._bar is None and received < total:
            self._bar = _bar(self._name, total, self._wanted)
        if self._bar is not None:
            self._bar.total = total
            self._bar.update(received - self._bar.n)

    def close(self) -> None:
        """Leave no bar behind."""
        if self._bar is not None:
            self._bar.close()


def _bar(name: str, total_bytes: int, wanted: bool | None) -> tqdm:  # type: ignore[type-arg]
    """Counts bytes and appears after half a second, if it is wanted."""
    enabled = _someone_watches() if wanted is None else wanted
    return tqdm(
        desc=name,
        total=total_bytes,
        unit="B",
        unit_scale=True,
        unit_divisor=1024,
        delay=SHOWN_AFTER_S,
        leave=False,
        disable=not enabled,
    )


def _someone_watches() -> bool:
    """A terminal, or a notebook (whose standard error is no terminal)."""
    return sys.stderr.isatty() or _in_notebook()


def _in_notebook() -> bool:
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"
