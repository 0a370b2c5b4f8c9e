"""Whether somebody sees what is drawn."""

from __future__ import annotations

import sys

from transparent_llm.readable_traceback import running_shell


def someone_watches() -> bool:
    """In a terminal, or in a notebook (whose standard error is no terminal)."""
    return (sys.stderr is not None and sys.stderr.isatty()) or _in_notebook()


def _in_notebook() -> bool:
    shell = running_shell()
    return shell is not None and type(shell).__name__ != "TerminalInteractiveShell"
