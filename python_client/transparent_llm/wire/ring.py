"""The ring of shared memory through which a client and a server of one host and one user pass large tensors.

A file in memory: what proves that both see the same one, how many pieces the client has read, and the slots. Both
sides read and write it by system calls and never map it, so no side can harm the other by truncating it. All that is
done with a file that was closed raises a ValueError: its number may be another file's by then.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import re
import stat
from io import FileIO
from pathlib import Path
from typing import NamedTuple

DIRECTORY = Path("/dev/shm")
NAME = re.compile(r"transparent-llm-[0-9a-f]{32}")
"""What such a file is called; a server opens no other."""

NONCE_BYTES = 32
"""At the beginning of the file, and in the request."""

LEAST_SLOT_BYTES, MOST_BYTES = 2**16, 2**26
"""Of a slot, as each costs a message; and of all slots of a ring together."""

WORTH_BYTES = 16 * 2**20
"""Of a tensor: a ring costs a file and its pages, and is no faster for less.

No setting: it is a property of the way, as it was measured (ADR 10); who wants no rings sets `shared_memory`.
"""

_MOST_NAMES = 10_000
"""That are looked at for files to sweep away."""

_COUNT_OFFSET, _COUNT_BYTES, _SLOTS_OFFSET = 64, 8, 4096


class Offer(NamedTuple):
    """What a request says of its client's ring. A server may get it from anyone."""

    name: str
    """Of its file in `DIRECTORY`."""

    nonce: bytes
    """What its file begins with, if both sides see the same one."""

    slots: int
    slot_bytes: int


def hold(file: FileIO) -> bool:
    """Show by a lock that the file's process lives: the system takes the lock away with the process.

    Returns:
        False where somebody has swept it away before, or is about to: it is of no use.
    """
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return os.fstat(file.fileno()).st_nlink > 0


def sweep() -> int:
    """Remove the files that killed processes of this user have left behind; how many there were."""
    swept = 0
    with contextlib.suppress(OSError), os.scandir(DIRECTORY) as entries:
        for entry in itertools.islice(entries, _MOST_NAMES):
            if NAME.fullmatch(entry.name):
                swept += _removed(Path(entry.path))
    return swept


def _removed(path: Path) -> bool:
    """Whether it was this user's and nobody held it."""
    with contextlib.suppress(OSError), FileIO(path, "r+", opener=unfollowed) as file:
        found = os.fstat(file.fileno())
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid():
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            return True
    return False


def unfollowed(path: str, flags: int) -> int:
    """Opens a file itself, not what a link leads to, and waits for no pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def begin(file: FileIO, nonce: bytes) -> None:
    """Write what proves that a server sees this file, and that nothing was read."""
    os.pwrite(file.fileno(), nonce.ljust(_COUNT_OFFSET, b"\0") + bytes(_COUNT_BYTES), 0)


def nonce(file: FileIO) -> bytes:
    """The bytes that `begin` wrote at the beginning of the file."""
    return os.pread(file.fileno(), NONCE_BYTES, 0)


def count_read(file: FileIO, count: int) -> None:
    """Tell the writer how many pieces were read."""
    os.pwrite(file.fileno(), count.to_bytes(_COUNT_BYTES, "little"), _COUNT_OFFSET)


def read_count(file: FileIO) -> int:
    """How many pieces the reader has read."""
    return int.from_bytes(os.pread(file.fileno(), _COUNT_BYTES, _COUNT_OFFSET), "little")


def write_slot(file: FileIO, slot: int, slot_bytes: int, data: memoryview) -> None:
    """Put a piece into a slot.

    Raises:
        OSError: there is no memory for it.
    """
    if os.pwrite(file.fileno(), data, _SLOTS_OFFSET + slot * slot_bytes) != len(data):
        raise OSError(errno.ENOSPC, "no room in shared memory")


def read_slot(file: FileIO, slot: int, slot_bytes: int, target: memoryview) -> None:
    """Get a piece out of a slot.

    Raises:
        OSError: it is not there.
    """
    if os.preadv(file.fileno(), [target], _SLOTS_OFFSET + slot * slot_bytes) != len(target):
        raise OSError(errno.EIO, "shared memory was truncated")
