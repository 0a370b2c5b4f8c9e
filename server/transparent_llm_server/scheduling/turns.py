"""Who is next: owners in turn, each with what came first of theirs."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Generic, TypeVar

_Job = TypeVar("_Job")


class Turns(Generic[_Job]):
    """Jobs of several owners. However many one has put in, another waits for one of theirs. Not safe for threads."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, deque[_Job]] = OrderedDict()  # whose turn it is next comes first

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def __iter__(self) -> Iterator[_Job]:
        return (job for jobs in self._jobs.values() for job in jobs)

    def put(self, owner: str, job: _Job) -> None:
        """Behind the other jobs of its owner."""
        self._jobs.setdefault(owner, deque()).append(job)

    def take(self) -> _Job:
        """The next one; then it is the turn of all other owners that have one."""
        owner, jobs = self._jobs.popitem(last=False)
        job = jobs.popleft()
        if jobs:
            self._jobs[owner] = jobs
        return job
