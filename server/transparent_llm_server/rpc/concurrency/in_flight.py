"""Calls in flight: from before their request has come until the client has taken the last byte of their answer.

A call costs a thread and memory from the moment that it begins, whether its request ever comes or its answer is ever
read. So it is counted from there on, and a call whose request has not come gives way to those that need its place.
"""

from __future__ import annotations

import enum
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from transparent_llm.errors import BusyError

log = logging.getLogger(__name__)
_Message = TypeVar("_Message")

_TAKEN_WITHIN_S = 1.0
"""An answer that has just been sent is on its way: it takes no place that another call could have."""


class Phase(enum.Enum):
    """What a call waits for."""

    ARRIVING = "its request"
    WORKING = "the server"
    OFFERED = "its client to take a message of a stream"
    ANSWERED = "its client to take the answer"


@dataclass(frozen=True)
class Bounds:
    """What is let in, and for how long it may do nothing. Seconds of 0: for ever."""

    most: int
    """Calls."""

    most_of_owner: int
    most_arriving_of_connection: int
    """Calls of one connection whose request has not come. Over it the oldest is cancelled."""

    give_way: frozenset[Phase] = frozenset({Phase.ARRIVING})
    """A call in one of these phases is cancelled when another needs its place, the oldest first."""

    grace_s: float = 0.05
    """But not before it has been so long in it: requests that have begun to come are there in that time."""

    arrival_s: float = 0.0
    """How long a request may take to come."""

    stall_s: float = 0.0
    """How long a message may wait to be taken."""

    unread_bytes: int = 2**26
    """Of answers that no client has taken, all together. Over it the oldest are dropped."""

    retry_after_s: float = 1.0
    """How long a refused call is told to wait."""


@dataclass(eq=False)
class CallInFlight:
    """One call. `cancel` ends it."""

    method: str
    owner: str
    connection: str
    cancel: Callable[[], object]
    since: float
    """When its phase began."""

    phase: Phase = Phase.ARRIVING
    unread_bytes: int = 0
    was_cancelled: bool = False
    parts_left: int = 2
    """The server's work on it and gRPC's own: it is over when both are."""


class InFlight:
    """The calls in flight of one server, or of one kind."""

    def __init__(self, bounds: Bounds, clock: Callable[[], float] = time.monotonic) -> None:
        self.bounds = bounds
        self._clock = clock
        self._calls: dict[CallInFlight, None] = {}  # in the order in which they came
        self._gave_way = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._calls)

    def enter(self, method: str, owner: str, connection: str, cancel: Callable[[], object]) -> CallInFlight:
        """Count a call that begins. It is over when it was `answered` and has `ended`.

        Raises:
            BusyError: all places, or all of this owner, are taken by calls that do not give way.
        """
        call = CallInFlight(method, owner, connection, cancel, self._clock())
        with self._lock:
            leaving = self._make_room(call)
            for each in leaving:
                each.was_cancelled = True
                self._calls.pop(each, None)
            self._gave_way += len(leaving)
            self._calls[call] = None
        for each in leaving:
            each.cancel()
        return call

    def ended(self, call: CallInFlight) -> None:
        """gRPC is done with a call: its client has taken all, or has left."""
        self._part_is_over(call)

    def requests(self, call: CallInFlight, messages: Iterator[_Message]) -> Iterator[_Message]:
        """The messages of a call's client, each awaited as such."""
        while True:
            self._begin(call, Phase.ARRIVING)
            try:
                message = next(messages)
            except StopIteration:
                return
            finally:
                self._begin(call, Phase.WORKING)
            yield message

    def offers(self, call: CallInFlight, messages: Iterable[_Message]) -> Iterator[_Message]:
        """The messages for a call's client. gRPC takes the next one only when the connection has room for it."""
        for message in messages:
            self._begin(call, Phase.OFFERED)
            yield message
            self._begin(call, Phase.WORKING)

    def answered(self, call: CallInFlight, nbytes: int = 0) -> None:
        """The server has nothing more to do for a call; so many bytes of its answer are gRPC's until they are taken."""
        with self._lock:
            call.phase, call.since, call.unread_bytes = Phase.ANSWERED, self._clock(), nbytes
            dropped = self._too_much_unread(call) if nbytes else []
        self._part_is_over(call)
        for each in dropped:
            log.warning("%s: its answer of %d bytes was not read and is dropped", each.method, each.unread_bytes)
            each.cancel()

    def cancel_overdue(self) -> Counter[Phase]:
        """End calls that have waited too long for their client; how many there were by phase, each told once.

        Those that gave way since the last time are among them.
        """
        with self._lock:
            found = Counter({Phase.ARRIVING: self._gave_way})
            self._gave_way = 0
            late = [call for call in self._calls if self._is_late(call)]
            for call in late:
                call.was_cancelled = True
                found[call.phase] += 1
        for call in late:
            log.warning(
                "%s: waited for %s for over %g s, cancelled", call.method, call.phase.value, self._limit_of(call)
            )
            call.cancel()
        if found[Phase.ARRIVING]:
            log.warning("%d calls whose request did not arrive were cancelled", found[Phase.ARRIVING])
        return found

    def _part_is_over(self, call: CallInFlight) -> None:
        with self._lock:
            call.parts_left -= 1
            if not call.parts_left:
                self._calls.pop(call, None)

    def _too_much_unread(self, newest: CallInFlight) -> list[CallInFlight]:
        """The oldest answers that nobody reads, as many as it takes."""
        unread = [call for call in self._calls if call.unread_bytes and not call.was_cancelled]
        too_much, dropped = sum(call.unread_bytes for call in unread) - self.bounds.unread_bytes, []
        for call in unread:
            if too_much > 0 and call is not newest:
                call.was_cancelled = True
                too_much -= call.unread_bytes
                dropped.append(call)
        return dropped

    def _begin(self, call: CallInFlight, phase: Phase) -> None:
        call.phase, call.since = phase, self._clock()

    def _make_room(self, call: CallInFlight) -> list[CallInFlight]:
        """Those that leave for this one."""
        bounds, calls = self.bounds, self._calls
        leaving: list[CallInFlight] = []
        if len(calls) >= bounds.most_arriving_of_connection:
            arriving = [c for c in calls if c.phase is Phase.ARRIVING and c.connection == call.connection]
            if len(arriving) >= bounds.most_arriving_of_connection:
                leaving += self._first_to_leave(arriving)
        if len(calls) >= bounds.most_of_owner and not leaving:
            leaving += self._leaving(
                (c for c in calls if c.owner == call.owner), bounds.most_of_owner, "of this owner "
            )
        if len(calls) >= bounds.most and not leaving:
            leaving += self._leaving(calls, bounds.most, "")
        return leaving

    def _leaving(self, calls: Iterable[CallInFlight], most: int, whose: str) -> list[CallInFlight]:
        counted = [call for call in calls if not self._is_on_its_way(call)]
        if len(counted) < most:
            return []
        first = self._first_to_leave(counted)
        if not first:
            raise self._busy(whose, most)
        return first

    def _first_to_leave(self, calls: Iterable[CallInFlight]) -> list[CallInFlight]:
        begun_before = self._clock() - self.bounds.grace_s
        may_leave = (
            c for c in calls if c.phase in self.bounds.give_way and c.since <= begun_before and not c.was_cancelled
        )
        first = next(may_leave, None)
        return [] if first is None else [first]

    def _is_on_its_way(self, call: CallInFlight) -> bool:
        return call.phase is Phase.ANSWERED and self._clock() - call.since < _TAKEN_WITHIN_S

    def _is_late(self, call: CallInFlight) -> bool:
        limit = self._limit_of(call)
        return bool(limit) and not call.was_cancelled and self._clock() - call.since > limit

    def _limit_of(self, call: CallInFlight) -> float:
        if call.phase is Phase.WORKING:
            return 0.0
        return self.bounds.arrival_s if call.phase is Phase.ARRIVING else self.bounds.stall_s

    def _busy(self, whose: str, allowed: int) -> BusyError:
        return BusyError(
            f"{allowed} calls {whose}are already under way, more are not answered at once; try again in "
            f"{self.bounds.retry_after_s:g} s",
            metadata={"allowed": str(allowed)},
            retry_after_s=self.bounds.retry_after_s,
        )
