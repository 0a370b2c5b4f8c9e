"""A run on its way through the queue, and who waits for it."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field

from transparent_llm_server.events import Call, Wait, current
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel


@dataclass
class QueuedRun:
    """A run that waits or is computed, and who waits for it."""

    model: ServedModel
    prepared: PreparedRun
    run_id: str
    owner: str
    wait: Wait | None
    waiters: list[Future[CompletedRun]] = field(default_factory=list)
    call: Call | None = field(default_factory=current.get)
    """That brought it."""

    sources: ExitStack = field(default_factory=ExitStack)
    """Until it is closed, the runs that its edits take from count as stored."""

    jobs: dict[str, Future[None]] = field(default_factory=dict)
    """In the engine's queue, one of each flow that asked for it: it is computed when the first has its turn."""

    @property
    def flow(self) -> str:
        """Who asked first."""
        return next(iter(self.jobs))

    @property
    def cost(self) -> int:
        """What it takes of the model, in positions."""
        return max(1, self.prepared.n_tokens)

    @property
    def is_abandoned(self) -> bool:
        """Whether nobody waits any more."""
        return all(waiter.cancelled() for waiter in self.waiters)
