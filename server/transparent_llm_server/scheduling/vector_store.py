"""Vectors that owners have kept for their edits, within budgets of bytes. Pure Python, clock injected."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from transparent_llm.errors import NotFoundError, TooLargeError
from transparent_llm.interventions.kept import KeptVector
from transparent_llm.quoting import quoted
from transparent_llm_server.scheduling.held_bytes import HeldBytes

BYTES_BESIDES = 1024
"""That a vector takes beside its numbers, at the most: its name, its digest, its places in tables."""

_K = TypeVar("_K")
_Key = tuple[str, str]
"""Owner and name."""


@dataclass(frozen=True)
class VectorBudget:
    """What may be kept."""

    max_bytes: int
    """All vectors together, each with `BYTES_BESIDES`."""

    max_bytes_per_owner: int
    max_per_owner: int
    ttl_s: float
    """One that nobody used for so long is dropped."""


@dataclass
class _Entry:
    vector: KeptVector
    nbytes: int
    used_at: float


class VectorStore:
    """Vectors by owner and name; each is seen by its owner only.

    Over the number or bytes of an owner, or the bytes of all, the least recently used go first. Safe for threads.
    """

    def __init__(self, budget: VectorBudget, clock: Callable[[], float]) -> None:
        self._budget, self._clock = budget, clock
        self._entries: OrderedDict[_Key, _Entry] = OrderedDict()  # least recently used first
        self._names_of: dict[str, OrderedDict[str, None]] = {}  # of each owner, in the same order
        self._by_digest: dict[tuple[str, str], OrderedDict[str, None]] = {}  # owner and digest -> names
        self._held = HeldBytes()
        self._lock = threading.Lock()

    @property
    def nbytes(self) -> int:
        """Bytes of all vectors."""
        with self._lock:
            self._expire()
            return self._held.total

    def __len__(self) -> int:
        with self._lock:
            self._expire()
            return len(self._entries)

    def put(self, vector: KeptVector, owner: str) -> None:
        """Keep a vector, in the place of one of that name, making room for it.

        Raises:
            TooLargeError: it is larger than all that one owner may keep.
        """
        assert vector.values is not None
        nbytes = vector.values.nbytes + BYTES_BESIDES
        allowed = min(self._budget.max_bytes_per_owner, self._budget.max_bytes) if self._budget.max_per_owner else 0
        if nbytes > allowed:
            raise TooLargeError(
                f"this vector takes {nbytes} bytes, and an owner may keep {allowed} here",
                metadata={"needed": str(nbytes), "allowed": str(allowed)},
            )
        with self._lock:
            self._expire()
            self._remove((owner, vector.name))
            while not self._has_room(owner, nbytes):
                self._remove((owner, next(iter(self._names_of[owner]))))
            while self._held.total + nbytes > self._budget.max_bytes:
                self._remove(next(iter(self._entries)))
            self._entries[owner, vector.name] = _Entry(vector, nbytes, self._clock())
            self._names_of.setdefault(owner, OrderedDict())[vector.name] = None
            self._by_digest.setdefault((owner, vector.digest), OrderedDict())[vector.name] = None
            self._held.add({(owner, vector.name): nbytes}, owner)

    def get(self, digest: str, owner: str) -> torch.Tensor:
        """The numbers of a vector with this digest, which becomes the most recently used.

        Raises:
            NotFoundError: VECTOR_NOT_FOUND: it was never kept, or dropped, or is another owner's.
        """
        with self._lock:
            self._expire()
            names = self._by_digest.get((owner, digest))
            if names is None:
                raise NotFoundError(
                    f"no vector {quoted(digest)} is kept: never sent, dropped, or not used for long; keep it again",
                    reason="VECTOR_NOT_FOUND",
                    metadata={"digest": digest},
                )
            name = next(iter(names))
            entry = self._entries[owner, name]
            entry.used_at = self._clock()
            self._entries.move_to_end((owner, name))
            self._names_of[owner].move_to_end(name)
            assert entry.vector.values is not None
            return entry.vector.values

    def of(self, owner: str) -> list[KeptVector]:
        """All of this owner, by name."""
        with self._lock:
            self._expire()
            return [self._entries[owner, name].vector for name in sorted(self._names_of.get(owner, ()))]

    def drop(self, name: str, owner: str) -> bool:
        """Drop a vector; whether this owner had it."""
        with self._lock:
            self._expire()
            return self._remove((owner, name))

    def expire(self) -> None:
        """Drop what nobody used for too long; without this call it happens at the next use."""
        with self._lock:
            self._expire()

    def _has_room(self, owner: str, nbytes: int) -> bool:
        count = len(self._names_of.get(owner, ()))
        fits = self._held.of(owner) + nbytes <= self._budget.max_bytes_per_owner
        return count == 0 or (fits and count < self._budget.max_per_owner)

    def _expire(self) -> None:
        oldest_kept = self._clock() - self._budget.ttl_s
        while self._entries and next(iter(self._entries.values())).used_at < oldest_kept:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: _Key) -> bool:
        entry = self._entries.pop(key, None)
        if entry is None:
            return False
        owner, name = key
        _without(self._names_of, owner, name)
        _without(self._by_digest, (owner, entry.vector.digest), name)
        self._held.remove({key: entry.nbytes}, owner)
        return True


def _without(held: dict[_K, OrderedDict[str, None]], key: _K, name: str) -> None:
    """Forget a name, and the key if it was the last."""
    del held[key][name]
    if not held[key]:
        del held[key]
