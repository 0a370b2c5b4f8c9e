"""What happens to calls, and to work on its way to the model: as it is counted, logged and traced.

What was asked and what was answered are no part of it. No metrics library here, and none below.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch

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

    positions: int = 0
    """Of a run that is computed because of it, padding included; of one that was there already, none."""

    value_bytes: int = 0
    """Of the tensors that it was sent, also through shared memory."""

    read_wait_s: float = 0.0
    """How long its reads waited for the model thread, together."""

    owner: str = ""
    trace_id: str = ""
    """32 hexadecimal digits: of the span if there is one, or else of the `traceparent` that came."""

    span: Any = None
    """Of whoever traces it."""


current: ContextVar[Call | None] = ContextVar("current_call", default=None)
"""The call that this thread works for, where calls are observed."""


class CallListener(Protocol):
    """Is told of every call, on the call's own thread, and must be quick."""

    def began(self, call: Call) -> None:
        """The work of a call begins, on the thread that answers it."""

    def ended(self, call: Call) -> None:
        """Its last message has gone, or it failed."""


def trace_id_of(traceparent: str) -> str:
    """The trace that a W3C `traceparent` names; empty if it is none."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match is not None else ""


Kind = Literal["run", "read"]


@dataclass(frozen=True)
class Wait:
    """Work that waits for its turn on the model thread, and the call that it is for."""

    kind: Kind
    call: Call | None
    since: float = field(default_factory=time.perf_counter)


class WorkListener(Protocol):
    """Is told on the model thread, and must be quick."""

    def waited(self, wait: Wait, seconds: float) -> None:
        """Work that waited for the model has its turn, after so many seconds."""

    def ran(self, model: str, waits: Sequence[Wait], seconds: float) -> None:
        """A forward pass of the model of that alias is done, for the work that had waited so."""


class WorkEvents:
    """Measures for some watchers. Without any it does nothing."""

    def __init__(self, listeners: Sequence[WorkListener] = ()) -> None:
        self._listeners = listeners

    def begin_wait(self, kind: Kind) -> Wait | None:
        """Work is queued now, on the thread of its call. None: nobody wants to know."""
        return Wait(kind, current.get()) if self._listeners else None

    def end_wait(self, wait: Wait | None) -> None:
        """Tell the listeners how long work waited that has its turn now."""
        if wait is not None:
            seconds = time.perf_counter() - wait.since
            for listener in self._listeners:
                listener.waited(wait, seconds)

    @contextmanager
    def forward(self, model: str, devices: str, waits: Sequence[Wait | None]) -> Iterator[None]:
        """Around a forward pass on some devices, as a model's description has them; one that fails or is given up is
        not told.

        A GPU works on after the pass was launched: where somebody measures, its end is waited for.
        """
        started = time.perf_counter()
        yield
        if not self._listeners:
            return
        for device in devices.split(", "):
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        for listener in self._listeners:
            listener.ran(model, [wait for wait in waits if wait is not None], seconds)
