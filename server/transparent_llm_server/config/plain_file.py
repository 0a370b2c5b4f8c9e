"""Reading a file whose name an operator gave."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

from transparent_llm.errors import InvalidRequestError


def read(
    path: Path, most_bytes: int, advice: str, require: Callable[[Path, os.stat_result], None] | None = None
) -> bytes:
    """All of a file, without waiting at a pipe for somebody who writes.

    Args:
        path: Of the file, or of a link to it.
        most_bytes: It may have.
        advice: What to do about one that has more.
        require: Refuses what is open before anything of it is read.

    Raises:
        InvalidRequestError: it is no regular file, or has more bytes.
        OSError: it cannot be read.
    """
    with open(path, "rb", opener=_without_waiting) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise InvalidRequestError(f"{path} is not a regular file: name one; a link to one will do")
        if require is not None:
            require(path, found)
        data = file.read(most_bytes + 1)
    if len(data) > most_bytes:
        raise InvalidRequestError(f"{path} has more than {most_bytes} bytes: {advice}")
    return data


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)
