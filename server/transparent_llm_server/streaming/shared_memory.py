"""Large tensors by shared memory, for clients of the same host and user that offer it. See `wire.ring`."""

from __future__ import annotations

import hmac
import logging
import os
import stat
import time
from collections.abc import Callable
from io import FileIO

from transparent_llm.errors import CancelledError
from transparent_llm.wire import frames, ring
from transparent_llm.wire.ring import Offer

_SHORTEST_PAUSE_S, _LONGEST_PAUSE_S = 20e-6, 10e-3
"""Between two looks at a slot. A client that is so slow waits no longer for it."""

log = logging.getLogger(__name__)


class OfferedRing:
    """What a request offers. Nothing is opened before `claim`.

    Args:
        offer: Of the request.
        is_active: Whether its client still waits.
        stall_s: A client that reads no piece for so long, while all slots are full, is cancelled. 0: never.
    """

    def __init__(self, offer: Offer, is_active: Callable[[], bool], stall_s: float = 0.0) -> None:
        self._name, self._nonce = offer.name, offer.nonce
        self._slots, self.slot_bytes = offer.slots, offer.slot_bytes
        self._is_active = is_active
        self._stall_s = stall_s
        self._file: FileIO | None = None
        self._is_tried = False
        self._written = 0

    def claim(self) -> bool:
        """Take part, if this is the client's file: by its nonce, owner and mode. No two calls get the same one."""
        if not self._is_tried:
            self._is_tried = True
            self._file = self._opened()
        return self._file is not None

    def frame(self, header: bytes | None, offset: int, data: memoryview) -> bytes:
        """The message for a piece, at most `slot_bytes`, that was put into the next slot.

        Raises:
            CancelledError: the client has left, or read nothing for `stall_s`, while all slots were full.
        """
        assert self._file is not None
        slot = self._wait_for_slot(self._file)
        try:
            ring.write_slot(self._file, slot, self.slot_bytes, data)
        except OSError:  # no memory left there
            return frames.frame(header, offset, data)
        self._written += 1
        return frames.shared_frame(header, offset, slot, len(data))

    def close(self) -> None:
        """Give the memory back."""
        if self._file is not None:
            self._file.close()

    def _opened(self) -> FileIO | None:
        fits = self.slot_bytes >= ring.LEAST_SLOT_BYTES and 0 < self._slots * self.slot_bytes <= ring.MOST_BYTES
        if not fits or not ring.NAME.fullmatch(self._name) or len(self._nonce) != ring.NONCE_BYTES:
            return None
        path = ring.DIRECTORY / self._name
        try:
            file = FileIO(path, "r+", opener=ring.unfollowed)
        except OSError:
            return None
        try:
            if self._is_the_clients(file):
                path.unlink()  # whoever does this has it; a second one finds nothing
                return file
        except OSError:
            pass
        file.close()
        return None

    def _is_the_clients(self, file: FileIO) -> bool:
        found = os.fstat(file.fileno())
        is_private = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        return is_private and found.st_nlink == 1 and hmac.compare_digest(ring.nonce(file), self._nonce)

    def _wait_for_slot(self, file: FileIO) -> int:
        pause, began = _SHORTEST_PAUSE_S, time.monotonic()
        while self._written - ring.read_count(file) >= self._slots:
            if not self._is_active():
                raise CancelledError("the client disconnected while its shared memory was full")
            if self._stall_s and time.monotonic() - began > self._stall_s:
                log.warning("shared memory: nobody read for %g s, cancelled", self._stall_s)
                raise CancelledError(f"nobody read from shared memory for {self._stall_s:g} s: the stream is cancelled")
            time.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_S)
        return self._written % self._slots
