"""Who may call: a file of owners and the SHA-256 of their tokens. No token itself is ever stored."""

from __future__ import annotations

import hashlib
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta, timezone
from pathlib import Path

from transparent_llm.errors import AuthError, InvalidRequestError
from transparent_llm_server.access.audit_log import Tell, tell_nobody
from transparent_llm_server.access.watched_files import WatchedFile
from transparent_llm_server.config import trusted_files

log = logging.getLogger(__name__)
OWNER = re.compile(r"[A-Za-z0-9._@-]{1,64}")
"""The name of a token's owner."""

_SHA256_HEX = re.compile(r"[0-9A-Fa-f]{64}")
_EXPIRES = re.compile(r"expires=(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ)", re.ASCII)
_TIME = "%Y-%m-%dT%H:%M:%SZ"
_SECRET_BYTES = 32
_MOST_BYTES = 2**20
"""Of the file: some 10,000 tokens. It is read in the time of a call, in some hundredths of a second then."""

_MOST_DAYS = 36_500
_WARNED_BEFORE = timedelta(days=7)
_MOST_NAMED = 10


@dataclass(frozen=True)
class _Entry:
    """Whom a token lets in, and until when."""

    owner: str
    expires: datetime | None = None


class BearerTokens:
    """The tokens of a file: one on each line as `OWNER SHA256HEX`, with blank lines and `#` comments.

    A line may end with `expires=2027-01-31T00:00:00Z` (UTC), from when on the token lets nobody in. An owner may have
    several tokens. The file is read again when it changes; while it cannot be read, is malformed or has no tokens, what
    was last read counts.

    Raises:
        InvalidRequestError: the file cannot be read, has no tokens, or a line of it is malformed.
    """

    def __init__(
        self,
        path: Path,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(timezone.utc),
        tell: Tell = tell_nobody,
    ) -> None:
        self._now = now
        self._file = WatchedFile(path, _read, "tokens", clock, tell)
        self._warned: tuple[Mapping[bytes, _Entry], date] | None = None
        self._warn_once_a_day(self._file.contents())

    def owner_of(self, bearer_token: str) -> str | None:
        """Whose token this is; None if it is nobody's.

        Raises:
            AuthError: it has expired, which only its holder is told.
        """
        entries = self._file.contents()
        self._warn_once_a_day(entries)
        found = entries.get(_digest(bearer_token))
        if found is None:
            return None
        if found.expires is not None and found.expires <= self._now():
            raise AuthError(
                f"this token expired on {found.expires.strftime(_TIME)}; ask the server's operator for a new one",
                metadata={"problem": "expired"},
            )
        return found.owner

    def read_again(self) -> None:
        """Now, whether the file seems to have changed or not."""
        self._file.read_again()

    def _warn_once_a_day(self, entries: Mapping[bytes, _Entry]) -> None:
        now = self._now()
        if self._warned is not None and self._warned[0] is entries and self._warned[1] == now.date():
            return
        self._warned = entries, now.date()
        ends = [(entry.expires, entry.owner) for entry in entries.values() if entry.expires is not None]
        near = sorted(end for end in ends if end[0] <= now + _WARNED_BEFORE)
        if near:
            named = ", ".join(f"{owner} on {expires.strftime(_TIME)}" for expires, owner in near[:_MOST_NAMED])
            more = f" and {len(near) - _MOST_NAMED} more" if len(near) > _MOST_NAMED else ""
            log.warning(
                "%d tokens have expired or will within %d days: %s%s; `transparent-llm token OWNER --days N` makes "
                "another",
                *(len(near), _WARNED_BEFORE.days, named, more),
            )


def new_bearer_token(owner: str, days: int | None = None) -> tuple[str, str]:
    """A fresh random token, and the line of the file that lets it in: for so many days, or for good.

    Raises:
        InvalidRequestError: the owner's name cannot be written in such a file, or there are no such days.
    """
    if not OWNER.fullmatch(owner):
        raise InvalidRequestError(f"owner {owner!r}: write 1 to 64 letters, digits, dots, dashes, underscores or @")
    if days is not None and not 1 <= days <= _MOST_DAYS:
        raise InvalidRequestError(f"a token for {days} days: write 1 to {_MOST_DAYS}")
    bearer_token = secrets.token_urlsafe(_SECRET_BYTES)
    while bearer_token.startswith("-"):  # a command line would take it for a flag
        bearer_token = secrets.token_urlsafe(_SECRET_BYTES)
    end = "" if days is None else (datetime.now(timezone.utc) + timedelta(days=days)).strftime(f" expires={_TIME}")
    return bearer_token, f"{owner} {_digest(bearer_token).hex()}{end}"


def _digest(bearer_token: str) -> bytes:
    return hashlib.sha256(bearer_token.encode("utf-8", "surrogatepass")).digest()


def _read(path: Path) -> Mapping[bytes, _Entry]:
    """Entries by digest. Errors name the line and never quote it: somebody may have written a token there.

    They are looked up, not compared one by one: of a digest that nobody can choose the bits of, and by a hash of it
    that has a key of this process, the time of a look-up tells nothing (ADR 11).
    """
    try:
        text = trusted_files.read(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequestError(f"cannot read the tokens in {path}: it is not UTF-8 text") from None
    entries: dict[bytes, _Entry] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            digest, entry = _parsed(words)
        except ValueError as error:
            raise _malformed(path, number, str(error)) from None
        if digest in entries:
            raise _malformed(path, number, "this token is on an earlier line too")
        entries[digest] = entry
    if not entries:
        raise InvalidRequestError(
            f"{path} has no tokens, so nobody could call; `transparent-llm token OWNER` prints a line for it"
        )
    trusted_files.warn_of(path)
    return entries


def _parsed(words: list[str]) -> tuple[bytes, _Entry]:
    """One line. The message of a ValueError says what is wrong with it."""
    if len(words) not in (2, 3):
        raise ValueError(f"{len(words)} words, not OWNER SHA256HEX and perhaps expires=TIME")
    owner, digest, *rest = words
    if not OWNER.fullmatch(owner):
        raise ValueError("an owner has 1 to 64 letters, digits, dots, dashes, underscores or @")
    if not _SHA256_HEX.fullmatch(digest):
        raise ValueError("the second word is not a SHA-256 in 64 hexadecimal digits")
    return bytes.fromhex(digest), _Entry(owner, _time(rest[0]) if rest else None)


def _time(word: str) -> datetime:
    """The moment that a word `expires=TIME` names, in UTC.

    Raises:
        ValueError: it is another word, or there is no such moment.
    """
    told = _EXPIRES.fullmatch(word)
    try:
        if told is not None:
            return datetime.strptime(told[1], _TIME).replace(tzinfo=timezone.utc)
    except ValueError:
        pass  # a 31st of February
    raise ValueError("the third word is not a time like expires=2027-01-31T00:00:00Z")


def _malformed(path: Path, number: int, what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{path}, line {number}: {what}; `transparent-llm token OWNER` prints a valid line",
        metadata={"file": str(path), "line": str(number)},
    )
