"""Who may call: a file of owners and the SHA-256 of their tokens. No token itself is ever stored."""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import threading
import time
from collections.abc import Callable
from pathlib import Path

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.watched_files import WatchedFiles

log = logging.getLogger(__name__)
_OWNER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
_SHA256_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_TOKEN_BYTES = 32


class TokenList:
    """The tokens of a file: one on each line as `OWNER SHA256HEX`, with blank lines and `#` comments.

    An owner may have several tokens. The file is read again when it changes; while it cannot be read or is malformed,
    what was last read counts.

    Raises:
        InvalidRequestError: the file cannot be read, or a line of it is malformed.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._file = WatchedFiles((path,), clock=clock)  # before it is read: a change meanwhile is seen later
        self._lock = threading.Lock()
        self._owners = _read(path)

    def owner_of(self, token: str) -> str | None:
        """Whose token this is; None if it is nobody's. Takes as long for every token."""
        presented, found = _digest(token), None
        for known, owner in self._current().items():
            if hmac.compare_digest(presented, known):
                found = owner
        return found

    def read_again(self) -> None:
        """Now, whether the file seems to have changed or not."""
        with self._lock:
            self._read_again()

    def _current(self) -> dict[bytes, str]:
        with self._lock:
            if self._file.have_changed():
                self._read_again()
            return self._owners

    def _read_again(self) -> None:
        try:
            self._owners = _read(self._path)
            log.info("%s was read again: %d tokens", self._path, len(self._owners))
        except InvalidRequestError as error:
            log.warning("%s; the tokens read before still count", error)


def new_token(owner: str) -> tuple[str, str]:
    """A fresh random token, and the line of the file that lets it in.

    Raises:
        InvalidRequestError: the owner's name cannot be written in such a file.
    """
    if not _OWNER.fullmatch(owner):
        raise InvalidRequestError(f"owner {owner!r}: write 1 to 64 letters, digits, dots, dashes, underscores or @")
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    return token, f"{owner} {_digest(token).hex()}"


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> dict[bytes, str]:
    """Owners by digest. Errors name the line and never quote it: somebody may have written a token there."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise InvalidRequestError(f"cannot read the tokens in {path}: {why}") from None
    owners: dict[bytes, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        if len(words) != 2:
            raise _malformed(path, number, f"{len(words)} words, where OWNER SHA256HEX belong")
        owner, digest = words
        if not _OWNER.fullmatch(owner):
            raise _malformed(path, number, "an owner has 1 to 64 letters, digits, dots, dashes, underscores or @")
        if not _SHA256_HEX.fullmatch(digest):
            raise _malformed(path, number, "the second word is no SHA-256 in 64 hexadecimal digits")
        if bytes.fromhex(digest) in owners:
            raise _malformed(path, number, "this token stands on an earlier line too")
        owners[bytes.fromhex(digest)] = owner
    return owners


def _malformed(path: Path, number: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path}, line {number}: {what}; `transparent-llm token OWNER` prints a line that is right",
        metadata={"file": str(path), "line": str(number)},
    )
