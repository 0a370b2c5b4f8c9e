"""Tracebacks that end in the user's line under IPython, which shows the last frame even if that is to be hidden."""

from __future__ import annotations

import sys
import traceback
from types import FrameType, TracebackType
from typing import Any

_WITHIN = ("transparent_llm", "transparent_llm_server", "contextlib")
"""Packages whose frames are of no help at the end; `with` blocks of ours put the last one between them."""


def rendered(error: BaseException, *, whole: bool) -> list[str]:
    """As the shell shows errors otherwise, in its mode and colours.

    Args:
        error: That has been raised.
        whole: Keep all frames.
    """
    frames = error.__traceback__ if whole else up_to_user(error.__traceback__)
    shell = running_shell()
    if shell is None:
        return traceback.format_exception(type(error), error, frames)
    lines: list[str] = shell.InteractiveTB.structured_traceback(type(error), error, frames)
    return lines


def running_shell() -> Any:
    """IPython's, of a terminal or a notebook; None where there is none."""
    return getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()


def up_to_user(frames: TracebackType | None) -> TracebackType | None:
    """The same without the frames of this package that it ends in; a whole one where there are no others."""
    links = []
    while frames is not None:
        links.append(frames)
        frames = frames.tb_next
    kept = len(links)
    while kept and is_within(links[kept - 1].tb_frame):
        kept -= 1
    short: TracebackType | None = None
    for link in reversed(links[: kept or len(links)]):
        short = TracebackType(short, link.tb_frame, link.tb_lasti, link.tb_lineno)
    return short


def is_within(frame: FrameType) -> bool:
    """Whether it is of this project, or between two that are."""
    return str(frame.f_globals.get("__name__")).partition(".")[0] in _WITHIN
