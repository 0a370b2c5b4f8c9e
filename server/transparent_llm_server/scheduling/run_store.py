"""The run store: what was run and not yet forgotten, within a budget of bytes. Pure Python, clock injected."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Literal, Protocol, TypeVar, get_args

from transparent_llm.errors import BusyError, NotFoundError, TooLargeError
from transparent_llm.quoting import quoted
from transparent_llm_server.scheduling.held_bytes import HeldBytes


class Sized(Protocol):
    """What the store can count: anything that knows how many bytes it keeps alive."""

    @property
    def nbytes(self) -> int:
        """Bytes that it keeps alive."""

    @property
    def storages(self) -> Mapping[Hashable, int]:
        """What these bytes are in, where it may share some with others: they count once. Empty: it shares none."""


_Run = TypeVar("_Run", bound=Sized)
EvictionReason = Literal["room", "age", "released", "unloaded"]
"""A run is dropped: for others, as nobody read it for too long, as its owner said so, or with its model."""

_RETRY_S = 1.0
_REMEMBERED = 16_384
"""Dropped runs whose ids are remembered, to tell that one was computed again."""


@dataclass
class StoreCounts:
    """What happened since the start."""

    hits: int = 0
    """Runs that were looked for, by a read or by `Run`, and were there."""

    misses: int = 0
    recomputations: int = 0
    """Runs stored again that had been dropped, as far as their ids are remembered."""

    evictions: dict[EvictionReason, int] = field(default_factory=lambda: dict.fromkeys(get_args(EvictionReason), 0))


@dataclass
class _Entry(Generic[_Run]):
    run: _Run
    owner: str
    held: Mapping[Hashable, int]
    made_at: float
    used_at: float


@dataclass(frozen=True)
class Stored(Generic[_Run]):
    """A run that is in the store, as whoever runs the server sees it."""

    run_id: str
    run: _Run
    owner: str
    nbytes: int
    age_s: float
    """Since it was put there."""

    idle_s: float
    """Since it was last looked for."""


class RunStore(Generic[_Run]):
    """Runs by id, each seen by its owner only.

    Over the budget of an owner or of all, the least recently used go first; one that nobody read for `ttl_s` goes too.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float], max_bytes_per_owner: int | None = None
    ) -> None:
        self._max_bytes = max_bytes
        self.max_bytes_per_owner = max_bytes if max_bytes_per_owner is None else min(max_bytes_per_owner, max_bytes)
        """Of all stored runs, the most for one owner."""

        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[str, _Entry[_Run]] = OrderedDict()  # least recently used first
        self._ids_of: dict[str, OrderedDict[str, None]] = {}  # of each owner, in the same order
        self._held = HeldBytes()
        self._dropped: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self.counts = StoreCounts()

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of all stored runs, and of those that something waiting keeps alive; what several share counts once."""
        with self._lock:
            self._expire()
            return self._held.total

    def usage(self, owner: str) -> tuple[int, int]:
        """How many runs of this owner are stored, and their bytes."""
        with self._lock:
            self._expire()
            return len(self._ids_of.get(owner, ())), self._held.of(owner)

    def stored(self) -> list[Stored[_Run]]:
        """All runs, the most recently used first."""
        with self._lock:
            self._expire()
            now = self._clock()
            return [
                Stored(run_id, entry.run, entry.owner, entry.run.nbytes, now - entry.made_at, now - entry.used_at)
                for run_id, entry in reversed(self._entries.items())
            ]

    def require_room(self, nbytes: int) -> None:
        """Refuse what can never be stored.

        Raises:
            TooLargeError: it is larger than all that one owner may store.
        """
        if nbytes > self.max_bytes_per_owner:
            raise TooLargeError(
                f"this run takes {nbytes} bytes, the server stores {self.max_bytes_per_owner} of one owner and "
                f"{self._max_bytes} in all; run fewer or shorter sentences at once, or start the server with a larger "
                "run store",
                metadata={"needed": str(nbytes), "allowed": str(self.max_bytes_per_owner)},
            )

    def put(self, run_id: str, run: _Run, owner: str = "") -> None:
        """Store a run, making room for it.

        Raises:
            TooLargeError: it is larger than all that one owner may store.
            BusyError: there is no room beside what waiting edits take from.
        """
        self.require_room(run.nbytes)
        held = _held(run)
        with self._lock:
            self._remove(run_id)
            self._expire()
            if run_id in self._dropped:
                del self._dropped[run_id]
                self.counts.recomputations += 1
            self._make_room(held, owner)
            self._entries[run_id] = _Entry(run, owner, held, self._clock(), self._clock())
            self._ids_of.setdefault(owner, OrderedDict())[run_id] = None
            self._held.add(held, owner)

    def get(self, run_id: str, owner: str = "") -> _Run:
        """A stored run, which becomes the most recently used.

        Raises:
            NotFoundError: it was never made, or evicted, expired or released, or is another owner's.
        """
        run = self.find(run_id, owner)
        if run is None:
            raise NotFoundError(
                f"run {quoted(run_id)} was not found: never made, evicted, expired or released; send Run again",
                reason="RUN_NOT_FOUND",
                metadata={"run_id": run_id},
            )
        return run

    def find(self, run_id: str, owner: str = "") -> _Run | None:
        """As `get`, but None if it is not there."""
        with self._lock:
            self._expire()
            entry = self._entries.get(run_id)
            if entry is None or entry.owner != owner:
                self.counts.misses += 1
                return None
            self.counts.hits += 1
            entry.used_at = self._clock()
            self._entries.move_to_end(run_id)
            self._ids_of[owner].move_to_end(run_id)
            return entry.run

    def peek(self, run_id: str, owner: str = "") -> _Run | None:
        """As `find`, but nobody has used it by this."""
        with self._lock:
            entry = self._entries.get(run_id)
            return entry.run if entry is not None and entry.owner == owner else None

    def hold(self, runs: Iterable[_Run], owner: str) -> Callable[[], None]:
        """Count runs of an owner, that something waiting keeps alive, whether they are dropped meanwhile or not; until
        what this returns is called.

        Raises:
            BusyError: there is no room beside what else is kept alive so.
        """
        held = {storage: nbytes for run in runs for storage, nbytes in _held(run).items()}
        with self._lock:
            self._make_room(held, owner)
            self._held.add(held, owner, fixed=True)

        def give_back() -> None:
            with self._lock:
                self._held.remove(held, owner, fixed=True)

        return give_back if held else lambda: None

    def release(self, run_id: str, owner: str = "") -> bool:
        """Drop a run; whether this owner had it."""
        with self._lock:
            self._expire()
            entry = self._entries.get(run_id)
            return entry is not None and entry.owner == owner and self._remove(run_id, "released")

    def drop(self, is_dropped: Callable[[_Run], bool]) -> None:
        """Drop all runs, of whichever owner, of which this is true."""
        with self._lock:
            for run_id in [key for key, entry in self._entries.items() if is_dropped(entry.run)]:
                self._remove(run_id, "unloaded")

    def expire(self) -> None:
        """Drop what nobody read for too long; without this call it happens at the next use of the store."""
        with self._lock:
            self._expire()

    def _make_room(self, held: Mapping[Hashable, int], owner: str) -> None:
        """Drop runs until there is room for more, first of this owner's, then of all."""
        while self._held.of(owner) + self._held.more(held) > self.max_bytes_per_owner:
            self._drop_one_of(self._ids_of.get(owner, ()))
        while self._held.total + self._held.more(held) > self._max_bytes:
            self._drop_one_of(self._entries)

    def _drop_one_of(self, run_ids: Iterable[str]) -> None:
        """The first that something waiting does not keep alive as a whole."""
        run_id = next((run_id for run_id in run_ids if not self._held.are_fixed(self._entries[run_id].held)), None)
        if run_id is None:
            raise BusyError(
                "runs that are waiting take from stored ones, beside which there is no room; try again later",
                retry_after_s=_RETRY_S,
            )
        self._remove(run_id, "room")

    def _expire(self) -> None:
        oldest_kept = self._clock() - self._ttl_s
        while self._entries and next(iter(self._entries.values())).used_at < oldest_kept:
            self._remove(next(iter(self._entries)), "age")

    def _remove(self, run_id: str, why: EvictionReason | None = None) -> bool:
        entry = self._entries.pop(run_id, None)
        if entry is None:
            return False
        if why is not None:
            self.counts.evictions[why] += 1
            self._dropped[run_id] = None
            if len(self._dropped) > _REMEMBERED:
                self._dropped.popitem(last=False)
        del self._ids_of[entry.owner][run_id]
        if not self._ids_of[entry.owner]:
            del self._ids_of[entry.owner]
        self._held.remove(entry.held, entry.owner)
        return True


def _held(run: Sized) -> Mapping[Hashable, int]:
    return run.storages or {object(): run.nbytes}
