"""Who is next: owners in turn, each with what came first of theirs."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator
from typing import Generic, TypeVar

_Job = TypeVar("_Job")


class Turns(Generic[_Job]):
    """Jobs of several owners. However many one has put in, another waits for one of theirs. Not safe for threads."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, deque[_Job]] = OrderedDict()  # whose turn it is next comes first

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __len__(self) -> int:
        return sum(map(len, self._jobs.values()))

    def __iter__(self) -> Iterator[_Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def put(self, owner: str, job: _Job) -> None:
        """Behind the other jobs of its owner."""
        self._jobs.setdefault(owner, deque()).append(job)

    def take(self) -> _Job:
        """The next one; then it is the turn of all other owners that have one."""
        return self.take_of(next(iter(self._jobs)))

    def take_of(self, owner: str) -> _Job:
        """The first one of an owner, who then is the last to have a turn."""
        jobs = self._jobs.pop(owner)
        job = jobs.popleft()
        if jobs:
            self._jobs[owner] = jobs
        return job

    def next_owner(self, but: Collection[str]) -> str | None:
        """Whose turn it is, those left out; None where nobody else has a job."""
        return next((owner for owner in self._jobs if owner not in but), None)

    def count(self, owner: str) -> int:
        """How many jobs of an owner wait."""
        return len(self._jobs.get(owner, ()))

    def busiest_owner(self) -> str | None:
        """Who has most jobs waiting."""
        return max(self._jobs, key=self.count, default=None)

    def take_back(self, owner: str) -> _Job:
        """The last one that an owner has put in, without a turn."""
        jobs = self._jobs[owner]
        job = jobs.pop()
        if not jobs:
            del self._jobs[owner]
        return job

    def drop(self, owner: str, is_unwanted: Callable[[_Job], bool]) -> None:
        """Forget jobs of an owner, who keeps their turn for the others."""
        kept = deque(job for job in self._jobs.get(owner, ()) if not is_unwanted(job))
        if kept:
            self._jobs[owner] = kept
        else:
            self._jobs.pop(owner, None)
