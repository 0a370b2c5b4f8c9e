"""What the log may say of a bug: where it happened, not what was said there."""

from __future__ import annotations

import traceback


def places(error: BaseException) -> str:
    """Types and places of an error and of those that led to it. Their words are left out: they may quote a prompt."""
    parts: list[str] = []
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        frames = "".join(traceback.format_tb(following.__traceback__))
        parts.append(f"{frames}{type(following).__module__}.{type(following).__qualname__}")
        led_by = None if following.__suppress_context__ else following.__context__
        following = following.__cause__ or led_by
    return "\nwhich led to\n".join(reversed(parts))
