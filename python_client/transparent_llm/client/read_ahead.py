"""Noticing that code walks along heads, layers, positions or neurons, and what it will ask for next.

A walk is noticed at its second step. What is read ahead is at most as much as the walk has asked for so far, and
at most a number of bytes; and what no call has come for is never more than what calls have come for. So at most half
of what is sent is sent in vain.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

Indices = tuple["int | None", ...]


class AccessPattern:
    """The calls of one method: along one index, and perhaps along an outer one when that is through."""

    def __init__(self) -> None:
        self._last: Indices | None = None
        self._first: Indices | None = None
        self._steps = self._all_steps = 0
        self._unasked: set[Indices] = set()
        self._start_over(None)

    @property
    def noticed(self) -> bool:
        """Whether it has a direction."""
        return self._axis is not None

    def step(self, indices: Indices) -> None:
        """Take note of a call."""
        self._all_steps += 1
        self._unasked.discard(indices)
        last = self._last
        changed = [] if last is None else [i for i, (a, b) in enumerate(zip(last, indices, strict=True)) if a != b]
        if last is None or any(last[i] is None or indices[i] is None for i in changed):
            self._start_over(indices)
        elif self._continues(changed, last, indices):
            self._last, self._steps = indices, self._steps + 1
        elif changed:
            self._start_over(indices, before=last if len(changed) == 1 else None)

    def next(self, sizes: Indices) -> Indices | None:
        """What will be asked for next, if the walk goes on."""
        return None if self._axis is None else next(self._successors(sizes), None)

    def ahead(self, sizes: Indices, entry_bytes: int, max_bytes: int) -> list[Indices]:
        """What is to be fetched of what will be asked for next. `sizes` are those of the axes."""
        if self._axis is None or not entry_bytes:
            return []
        found: list[Indices] = []
        for indices in islice(self._successors(sizes), min(self._steps, max_bytes // entry_bytes)):
            if indices not in self._unasked:
                if len(self._unasked) >= self._all_steps:
                    break
                self._unasked.add(indices)
            found.append(indices)
        return found

    def _start_over(self, indices: Indices | None, before: Indices | None = None) -> None:
        """A walk of one step; or of two, with the call before."""
        self._last, self._first = indices, before or indices
        self._steps = 1
        self._axis: int | None = None
        self._outer: int | None = None
        self._stride = self._outer_stride = 0
        self._row_end: int | None = None
        if before is not None and indices is not None:
            self._goes_on(
                next(i for i, (a, b) in enumerate(zip(before, indices, strict=True)) if a != b), before, indices
            )
            self._steps = 2

    def _continues(self, changed: list[int], last: Indices, indices: Indices) -> bool:
        if len(changed) == 1:
            return self._goes_on(changed[0], last, indices)
        return len(changed) == 2 and self._begins_a_row(changed, last, indices)

    def _goes_on(self, axis: int, last: Indices, indices: Indices) -> bool:
        stride = _difference(last, indices, axis)
        if self._axis is None:
            self._axis, self._stride = axis, stride
        return (axis, stride) == (self._axis, self._stride)

    def _begins_a_row(self, changed: list[int], last: Indices, indices: Indices) -> bool:
        """The inner index is back where it began, an outer one goes on."""
        if self._axis not in changed or self._first is None or indices[self._axis] != self._first[self._axis]:
            return False
        outer = next(axis for axis in changed if axis != self._axis)
        stride = _difference(last, indices, outer)
        if self._outer is None:
            self._outer, self._outer_stride, self._row_end = outer, stride, last[self._axis]
        return (outer, stride) == (self._outer, self._outer_stride)

    def _successors(self, sizes: Indices) -> Iterator[Indices]:
        axis, outer = self._axis, self._outer
        assert axis is not None
        assert self._last is not None
        assert self._first is not None
        position: list[int | None] = list(self._last)
        while True:
            if position[axis] == self._row_end or not _advance(position, axis, self._stride, sizes):
                if outer is None or not _advance(position, outer, self._outer_stride, sizes):
                    return
                position[axis] = self._first[axis]
            yield tuple(position)


def _advance(position: list[int | None], axis: int, stride: int, sizes: Indices) -> bool:
    """Move along an axis, unless that leads out of it."""
    here, size = position[axis], sizes[axis]
    if here is None or size is None or not 0 <= here + stride < size:
        return False
    position[axis] = here + stride
    return True


def _difference(last: Indices, indices: Indices, axis: int) -> int:
    before, now = last[axis], indices[axis]
    assert before is not None
    assert now is not None
    return now - before
