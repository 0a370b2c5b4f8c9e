"""What the log may say of a bug: where it happened, not what was said there."""

from __future__ import annotations

import logging
import traceback
import uuid

from transparent_llm.errors import InternalError

log = logging.getLogger(__name__)


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


def incident(what: str, error: BaseException) -> InternalError:
    """What callers are told of a bug outside of any call, after the log was told where it happened."""
    name = uuid.uuid4().hex[:12]
    log.error("incident %s in %s\n%s", name, what, places(error))
    message = f"{type(error).__name__} in {what}, incident {name}; the server's log has the details"
    return InternalError(message, metadata={"incident": name})
