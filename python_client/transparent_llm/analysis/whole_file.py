"""A file that is there whole or not at all."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from transparent_llm.errors import InvalidRequestError


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its place when the block ends well; until then what is there stays.

    A link stays a link, and its target is replaced. A file that was there keeps its mode.

    Raises:
        InvalidRequestError: it cannot be written, or is something else than a regular file.
    """
    try:
        real = Path(os.path.realpath(path))
        mode = mode_of(real)
        descriptor, name = tempfile.mkstemp(prefix=f".{real.name[:100]}.", dir=real.parent)
    except OSError as error:
        raise InvalidRequestError(f"cannot write {path}: {error}") from error
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, mode)
        mode_of(real)  # not of what has come there in the meantime
        os.replace(name, real)
    except BaseException as error:
        with suppress(OSError):
            os.unlink(name)
        if isinstance(error, OSError):
            raise InvalidRequestError(f"cannot write {path}: {error}") from error
        raise


def mode_of(path: Path) -> int:
    """Permissions of a file that may be replaced, or of a new one if there is none.

    Raises:
        InvalidRequestError: it is something else than a regular file.
    """
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        return 0o666 & ~_umask()
    if not stat.S_ISREG(found):
        raise InvalidRequestError(f"cannot write {path}: it is no regular file, which is not written over; name a file")
    return stat.S_IMODE(found)


def _umask() -> int:
    """Of this process; it can only be read by setting it."""
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
