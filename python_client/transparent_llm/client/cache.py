"""What the client keeps, within a limit in bytes: tensors of current runs, and weights."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from transparent_llm.runtime.forking import lock_of

_Key = TypeVar("_Key", bound=Hashable)
_Value = TypeVar("_Value")


class ByteLimitedCache(Generic[_Key, _Value]):
    """Values by key; the least recently used go first. Safe for many threads; nobody writes to what is in here.

    One that takes more than a quarter of the limit is not kept, as it would push out everything else.
    """

    def __init__(self, max_bytes: int, size: Callable[[_Value], int]) -> None:
        self._max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[_Key, _Value] = OrderedDict()  # least recently used first
        self._bytes = 0
        self._lock = lock_of(self)

    @property
    def nbytes(self) -> int:
        """Of everything that is kept."""
        return self._bytes

    @property
    def largest(self) -> int:
        """Bytes of the largest value that is kept."""
        return self._max_bytes // 4

    def keeps(self, nbytes: int) -> bool:
        """Whether a value of this size is kept."""
        return 0 < nbytes <= self.largest

    def get(self, key: _Key) -> _Value | None:
        """A value that is kept, or None."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: _Key, value: _Value) -> bool:
        """Keep a value, if it is not too large; whether it is kept."""
        nbytes = self._size(value)
        if not self.keeps(nbytes):
            return False
        with self._lock:
            self._remove(key)
            self._values[key] = value
            self._bytes += nbytes
            while self._bytes > self._max_bytes:
                self._remove(next(iter(self._values)))
        return True

    def forget(self, belongs: Callable[[_Key], bool]) -> None:
        """Drop all values with such keys."""
        with self._lock:
            for key in [key for key in self._values if belongs(key)]:
                self._remove(key)

    def _remove(self, key: _Key) -> None:
        value = self._values.pop(key, None)
        if value is not None:
            self._bytes -= self._size(value)
