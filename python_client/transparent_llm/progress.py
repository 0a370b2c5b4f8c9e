"""A progress bar for transfers that take long enough to wonder about."""

from __future__ import annotations

import sys

from tqdm.auto import tqdm

SHOWN_AFTER_S = 0.5


def progress_bar(name: str, total_bytes: int, wanted: bool | None) -> tqdm:  # type: ignore[type-arg]
    """A bar that counts bytes and appears after half a second, if it is wanted."""
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
