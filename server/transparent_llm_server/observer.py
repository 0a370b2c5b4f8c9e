"""Who wants to know what happens to work on its way to the model. No metrics library here, and none below."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from transparent_llm_server import call

Kind = Literal["run", "read"]


@dataclass(frozen=True)
class Wait:
    """Work that waits for its turn on the model thread, and the call that it is for."""

    kind: Kind
    call: call.Call | None
    since: float = field(default_factory=time.perf_counter)


class Watcher(Protocol):
    """Is told on the model thread, and must be quick."""

    def waited(self, wait: Wait, seconds: float) -> None:
        """Its turn has come."""

    def ran(self, model: str, waits: Sequence[Wait], seconds: float) -> None:
        """A forward pass of the model of that alias is done, for the work that had waited so."""


class Observer:
    """Measures for some watchers. Without any it does nothing."""

    def __init__(self, watchers: Sequence[Watcher] = ()) -> None:
        self._watchers = watchers

    def begin_wait(self, kind: Kind) -> Wait | None:
        """Work is queued now, on the thread of its call. None: nobody wants to know."""
        return Wait(kind, call.current.get()) if self._watchers else None

    def end_wait(self, wait: Wait | None) -> None:
        """Its turn has come."""
        if wait is not None:
            seconds = time.perf_counter() - wait.since
            for watcher in self._watchers:
                watcher.waited(wait, seconds)

    @contextmanager
    def forward(self, model: str, devices: str, waits: Sequence[Wait | None]) -> Iterator[None]:
        """Around a forward pass on some devices, as a model's description has them; one that fails or is given up is
        not told.

        A GPU works on after the pass was launched: where somebody measures, its end is waited for.
        """
        started = time.perf_counter()
        yield
        if not self._watchers:
            return
        for device in devices.split(", "):
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
        seconds = time.perf_counter() - started
        for watcher in self._watchers:
            watcher.ran(model, [wait for wait in waits if wait is not None], seconds)
