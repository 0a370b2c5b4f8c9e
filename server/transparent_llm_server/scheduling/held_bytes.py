"""Bytes that are kept alive, each storage counted once however many hold it. Not safe for threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping


class HeldBytes:
    """Of several owners, whose storages are their own."""

    def __init__(self) -> None:
        self._holders: Counter[Hashable] = Counter()
        self._fixed: Counter[Hashable] = Counter()
        self._of: Counter[str] = Counter()
        self.total = 0
        """Of all."""

    def of(self, owner: str) -> int:
        """Of an owner."""
        return self._of[owner]

    def more(self, storages: Mapping[Hashable, int]) -> int:
        """How many bytes these would add."""
        return sum(nbytes for storage, nbytes in storages.items() if not self._holders[storage])

    def are_fixed(self, storages: Mapping[Hashable, int]) -> bool:
        """Whether each of these is held by one that cannot be made to let go."""
        return all(self._fixed[storage] for storage in storages)

    def add(self, storages: Mapping[Hashable, int], owner: str, *, fixed: bool = False) -> None:
        """One more holds these, which perhaps cannot be made to let go."""
        self._count(self.more(storages), owner)
        for held in (self._holders, self._fixed) if fixed else (self._holders,):
            held.update(dict.fromkeys(storages, 1))

    def remove(self, storages: Mapping[Hashable, int], owner: str, *, fixed: bool = False) -> None:
        """One less does."""
        for held in (self._holders, self._fixed) if fixed else (self._holders,):
            for storage in storages:
                held[storage] -= 1
                if not held[storage]:
                    del held[storage]
        self._count(-self.more(storages), owner)

    def _count(self, nbytes: int, owner: str) -> None:
        self.total += nbytes
        self._of[owner] += nbytes
        if not self._of[owner]:
            del self._of[owner]
