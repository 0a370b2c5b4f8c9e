"""One call, as it is counted, logged and traced. What was asked and what was answered are no part of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Protocol

OTHER = "other"
"""The method of calls that no service here knows, whatever name they made up."""

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")


@dataclass(eq=False)
class Call:
    """A call from the moment its work begins. What is known only at its end is empty until then."""

    service: str
    """The full name, or OTHER."""

    method: str
    """The RPC's name without the service, or OTHER: a closed set."""

    headers: Mapping[str, str] = field(default_factory=dict)
    """`traceparent`, `tracestate` and the run key, where the call brought them."""

    peer: str = "remote"
    """Where it comes from: unix, loopback or remote."""

    address: str = ""
    """The same with its host and port, as gRPC writes it."""

    code: str = ""
    """How it ended: the name of a gRPC status code."""

    reason: str = ""
    """Of the error that it was answered with, as in errors.proto."""

    problem: str = ""
    """Of who they say they are, where that was refused: missing, malformed, unknown, expired, unnamed or revoked."""

    seconds: float = 0.0
    sent_bytes: int = 0
    """Of all messages, without what went through shared memory."""

    read_wait_s: float = 0.0
    """How long its reads waited for the model thread, together."""

    owner: str = ""
    trace_id: str = ""
    """32 hexadecimal digits: of the span if there is one, or else of the `traceparent` that came."""

    span: Any = None
    """Of whoever traces it."""


current: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""The call that this thread works for, where calls are observed."""


class Listener(Protocol):
    """Is told of every call, on the call's own thread, and must be quick."""

    def began(self, call: Call) -> None:
        """Its work begins now."""

    def ended(self, call: Call) -> None:
        """Its last message has gone, or it failed."""


def trace_id_of(traceparent: str) -> str:
    """The trace that a W3C `traceparent` names; empty if it is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match is not None else ""
