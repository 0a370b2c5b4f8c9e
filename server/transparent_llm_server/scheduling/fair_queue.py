"""Who is next where jobs differ in size: weighted fair queueing, whoever has had least of the model."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

_Job = TypeVar("_Job")


class FairQueue(Generic[_Job]):
    """Jobs of several flows, each job with a cost. Not safe for threads.

    Next is the flow that has had least, and of it what came first. A flow that comes, or comes back, is taken to have
    had what each of those that wait would have had by then if all were served at once (the virtual time of weighted
    fair queueing): it neither has to wait for what others had before, nor saves its turns up. When nobody waits any
    more, all is forgotten.
    """

    def __init__(self) -> None:
        self._jobs: dict[str, deque[tuple[_Job, int]]] = {}  # whose turn is longest ago comes first
        self._had: dict[str, float] = {}
        self._virtual_time = 0.0

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[_Job]:
        return (job for jobs in self._jobs.values() for job, _ in jobs)

    @property
    def n_flows(self) -> int:
        """Of how many flows jobs wait."""
        return len(self._jobs)

    def put(self, flow: str, job: _Job, cost: int = 1) -> None:
        """Behind the other jobs of its flow."""
        if flow not in self._jobs:
            self._had[flow] = max(self._virtual_time, self._had.get(flow, 0.0))
            self._jobs = {flow: deque(), **self._jobs}  # among equals, who has just come is first
        self._jobs[flow].append((job, cost))

    def take(self) -> _Job:
        """The next one, which its flow is charged with."""
        flow = min(self._jobs, key=self._had.__getitem__)
        job, cost = self._jobs[flow].popleft()
        self.charge(flow, cost)
        jobs = self._jobs.pop(flow)
        if jobs:
            self._jobs[flow] = jobs
        self._forget()
        return job

    def charge(self, flow: str, cost: int) -> None:
        """A flow has had so much, whether it waited for it here or not."""
        self._had[flow] = self._had.get(flow, self._virtual_time) + cost
        self._virtual_time += cost / max(1, len(self._jobs))

    def before(self, job: _Job) -> int:
        """How many of those that wait would be taken before this one, if nobody else came; all where it is not here."""
        imagined: FairQueue[_Job] = FairQueue()
        imagined._jobs = {flow: deque(jobs) for flow, jobs in self._jobs.items()}
        imagined._had, imagined._virtual_time = dict(self._had), self._virtual_time
        taken = 0
        while imagined and imagined.take() is not job:
            taken += 1
        return taken

    def make_room(self, flow: str) -> _Job | None:
        """Give up the last job of the flow that has most waiting, for one more of another that has clearly fewer.

        None where there is no such flow.
        """
        busiest = max(self._jobs, key=self.count, default=flow)
        if self.count(busiest) <= self.count(flow) + 1:
            return None
        return self._jobs[busiest].pop()[0]  # at least one is left

    def count(self, flow: str) -> int:
        """How many jobs of a flow wait."""
        return len(self._jobs.get(flow, ()))

    def drop(self, is_unwanted: Callable[[_Job], bool]) -> None:
        """Forget jobs, which nobody is charged with."""
        kept = {flow: deque(entry for entry in jobs if not is_unwanted(entry[0])) for flow, jobs in self._jobs.items()}
        self._jobs = {flow: jobs for flow, jobs in kept.items() if jobs}
        self._forget()

    def _forget(self) -> None:
        """What flows had that do not wait, as far as it makes no difference when they come back."""
        if not self._jobs:
            self._had, self._virtual_time = {}, 0.0
            return
        self._had = {flow: had for flow, had in self._had.items() if flow in self._jobs or had > self._virtual_time}
