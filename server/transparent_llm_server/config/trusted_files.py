"""Files that decide who may call: whoever can write one of them decides it, so it matters who can."""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config import plain_file

log = logging.getLogger(__name__)
_ROOT = 0


def read(path: Path, most_bytes: int) -> bytes:
    """All of a file that not everybody may write.

    Raises:
        InvalidRequestError: everybody may, it is no plain file, it has more bytes, or it cannot be read.
    """
    try:
        return plain_file.read(path, most_bytes, "is it the right file?", require_not_everybodys)
    except OSError as error:
        raise InvalidRequestError(f"cannot read {path}: {error.strerror}") from None


def require_not_everybodys(path: Path, found: os.stat_result) -> None:
    """Refuse a file that every user may change.

    Raises:
        InvalidRequestError: this is one.
    """
    if found.st_mode & stat.S_IWOTH:
        raise InvalidRequestError(f"{path} can be changed by every user of this host: chmod o-w it")


def warn_of(path: Path, *, is_secret: bool = False) -> None:
    """Tell the log who else may change a file, or read it where it is a secret."""
    try:
        found = os.stat(path)
    except OSError:
        return
    if found.st_uid not in (_ROOT, os.geteuid()):
        log.warning(
            "%s belongs to the user %d, who can change it: chown it to root or to the server", path, found.st_uid
        )
    if found.st_mode & stat.S_IWGRP and found.st_gid != _ROOT:
        log.warning(
            "%s can be changed by the group %d: chmod g-w it, unless its members are all trusted", path, found.st_gid
        )
    if is_secret and found.st_mode & stat.S_IROTH:
        log.warning("%s can be read by every user of this host: chmod o-r it", path)
