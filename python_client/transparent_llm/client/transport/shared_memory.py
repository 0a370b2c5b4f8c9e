"""Shared memory that this client offers to a server of its own host and user. See `wire.ring`."""

from __future__ import annotations

import contextlib
import os
import secrets
import weakref
from collections import deque
from collections.abc import Iterable
from io import FileIO
from pathlib import Path

from transparent_llm.errors import UnavailableError
from transparent_llm.wire import ring

_SLOTS, _SLOT_BYTES = 4, 2**20
_TRIES = 5
_MOST_IDLE = 16
"""Rings that wait for the next call: each is an open file."""


class SharedMemoryPool:
    """Rings of one client and its copies. One that a server has taken is used for that call and no other.

    With the first one go those that killed processes of this user have left.
    """

    def __init__(self, *, enabled: bool) -> None:
        self._enabled = enabled and ring.DIRECTORY.is_dir() and hasattr(os, "preadv")
        self._idle: deque[Ring] = deque()
        self._has_swept = False
        weakref.finalize(self, _close_all, self._idle)

    def lend(self, sizes: Iterable[int | None]) -> Ring | None:
        """A ring for one call, to be given back after it; None where no server could or would take it.

        Args:
            sizes: The most bytes of each of its tensors, as far as they are known.
        """
        if not self._enabled or all(size is not None and size < ring.WORTH_BYTES for size in sizes):
            return None
        try:
            lent = self._idle_one() or self._new_one()
            lent.begin()
        except OSError:  # no room, or not allowed: the socket does as well
            self._enabled = False
            return None
        return lent

    def take_back(self, lent: Ring | None, *, ended_well: bool) -> None:
        """The call is over. A server that was left in the middle may still write: nobody gets that ring again."""
        if lent is None:
            return
        if not ended_well or lent.is_used:
            lent.close()
            return
        self._idle.append(lent)
        if len(self._idle) > _MOST_IDLE and (surplus := self._idle_one()) is not None:  # asked after it was added:
            surplus.close()  # threads that give rings back at one time would all find room before

    def _new_one(self) -> Ring:
        if not self._has_swept:
            self._has_swept = True
            ring.sweep()
        return Ring()

    def _idle_one(self) -> Ring | None:
        while True:
            try:
                found = self._idle.pop()
            except IndexError:
                return None
            if found.is_ours:
                return found
            found.close()


class Ring:
    """A file in shared memory with a few slots."""

    def __init__(self) -> None:
        self._path, self._file = _held_file()
        self._process = os.getpid()
        self._n_read = 0
        self._nonce = b""

    @property
    def is_used(self) -> bool:
        """Whether a server took part."""
        return self._n_read > 0 or not self._path.exists()

    @property
    def is_ours(self) -> bool:
        """Whether it was made by this process, not by the one that it was forked from."""
        return self._process == os.getpid()

    @property
    def offer(self) -> ring.Offer:
        """What the request of this call says of it."""
        return ring.Offer(self._path.name, self._nonce, _SLOTS, _SLOT_BYTES)

    def begin(self) -> None:
        """Make it ready for another call.

        Raises:
            OSError: there is no room.
        """
        self._nonce = secrets.token_bytes(ring.NONCE_BYTES)
        ring.begin(self._file, self._nonce)

    def take(self, slot: int, target: memoryview) -> None:
        """Get a piece, and let the server have the slot.

        Raises:
            UnavailableError: it is not there.
        """
        try:
            ring.read_slot(self._file, slot, _SLOT_BYTES, target)
            self._n_read += 1
            ring.count_read(self._file, self._n_read)
        except (OSError, OverflowError, ValueError) as error:
            raise UnavailableError(f"a piece in shared memory is lost: {error}") from None

    def close(self) -> None:
        """Give it up; its memory is free when the server has closed it too."""
        if self.is_ours:
            with contextlib.suppress(FileNotFoundError):
                self._path.unlink()
        self._file.close()


def _held_file() -> tuple[Path, FileIO]:
    """A new one, and not one that others have swept away before it was held."""
    for _ in range(_TRIES):
        path = ring.DIRECTORY / f"transparent-llm-{secrets.token_hex(16)}"
        file = FileIO(path, "x+", opener=_private)
        if ring.hold(file):
            return path, file
        file.close()
    raise FileNotFoundError(f"each of {_TRIES} new files in {ring.DIRECTORY} was swept away")


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _close_all(idle: deque[Ring]) -> None:
    while idle:
        idle.pop().close()
