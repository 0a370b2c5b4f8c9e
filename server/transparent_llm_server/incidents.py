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
    return _told(what, "the server's log", _logged(what, error, ""), error)


def incident_of_call(method: str, error: BaseException, *, quoting: bool) -> InternalError:
    """What the caller of a method is told of a bug in it; `quoting` has the log tell the error's words too."""
    name = _logged(method, error, f": {error}" if quoting else "")
    return _told("the server", "its log", name, error)


def _logged(what: str, error: BaseException, words: str) -> str:
    """The name under which the log has it."""
    name = uuid.uuid4().hex[:12]
    log.error("incident %s in %s%s\n%s", name, what, words, places(error))
    return name


def _told(what: str, whose_log: str, name: str, error: BaseException) -> InternalError:
    message = f"{type(error).__name__} in {what}, incident {name}; {whose_log} has the details"
    return InternalError(message, metadata={"incident": name})
