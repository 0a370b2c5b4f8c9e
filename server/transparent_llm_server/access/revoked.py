"""Who may not call any more, whatever they show: a file of certificates and owners.

gRPC for Python reads no revocation lists of authorities, and its core's are not to be reached from there. So a call is
judged when it begins, by the certificate that its connection was opened with.
"""

from __future__ import annotations

import hashlib
import re
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from transparent_llm.errors import AuthError, InvalidRequestError
from transparent_llm_server.access.audit_log import Tell, tell_nobody
from transparent_llm_server.access.bearer_tokens import OWNER
from transparent_llm_server.access.watched_files import WatchedFile
from transparent_llm_server.config import trusted_files

_MOST_BYTES = 2**20
_FINGERPRINT = re.compile(r"sha256:([0-9A-Fa-f]{64})")
_SERIAL = re.compile(r"serial:([0-9A-Fa-f]{1,40})")
_COMMENT = re.compile(r"(^|\s)#.*")
"""A `#` within a word is a part of it: names of certificates have such things."""

_CERTIFICATE_OWNER = re.compile(r"(CN|SAN|ADMIN)=.{1,200}")
_SEQUENCE, _INTEGER, _VERSION = 0x30, 0x02, 0xA0
"""Tags of DER."""

_ASK = "ask the server's operator for another"


@dataclass
class _Entries:
    """Everyone whom the lines of the file name, by the three ways of naming."""

    fingerprints: set[bytes] = field(default_factory=set)
    serials: set[int] = field(default_factory=set)
    owners: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.fingerprints) + len(self.serials) + len(self.owners)


class RevokedList:
    """The lines of a file: `sha256:` and the fingerprint of a certificate, `serial:` and its number, or an owner.

    Fingerprints and numbers are hexadecimal, with or without colons. A number counts for all authorities. Owners are
    written as the log has them: `alice` by token, `CN=alice` or `SAN=alice` by certificate. `#` begins a comment.
    The file is read again when it changes; while it cannot be, what was last read counts.

    Raises:
        InvalidRequestError: it cannot be read, or a line of it is malformed.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic, tell: Tell = tell_nobody) -> None:
        self._file = WatchedFile(path, _read, "revocations", clock, tell)

    def read_again(self) -> None:
        """Now, whether the file seems to have changed or not."""
        self._file.read_again()

    def require_owner(self, owner: str) -> None:
        """Refuse an owner who is on the list.

        Raises:
            AuthError: they are.
        """
        if owner in self._file.contents().owners:
            raise AuthError(
                "this server no longer admits this owner; ask its operator", metadata={"problem": "revoked"}
            )

    def require_certificate(self, pem: bytes) -> None:
        """Refuse a certificate that is on the list.

        Raises:
            AuthError: it is.
        """
        entries, der = self._file.contents(), ssl.PEM_cert_to_DER_cert(pem.decode("ascii"))
        if hashlib.sha256(der).digest() in entries.fingerprints or (
            entries.serials and _serial(der) in entries.serials
        ):
            raise AuthError(f"the client certificate was revoked; {_ASK}", metadata={"problem": "revoked"})


def _read(path: Path) -> _Entries:
    try:
        text = trusted_files.read(path, _MOST_BYTES).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidRequestError(f"cannot read who is revoked in {path}: it is not UTF-8 text") from None
    entries = _Entries()
    for number, line in enumerate(text.splitlines(), start=1):
        entry = _COMMENT.sub("", line).strip()
        if entry and not _add(entry, entries):
            raise InvalidRequestError(
                f"{path}, line {number}: write sha256:FINGERPRINT, serial:NUMBER, or an owner's name as it is in the "
                "log",
                metadata={"file": str(path), "line": str(number)},
            )
    trusted_files.warn_of(path)
    return entries


def _add(line: str, entries: _Entries) -> bool:
    """Put what a line names into the entries; False if it is none of the three forms."""
    kind, _, number = line.partition(":")
    plain = f"{kind}:{number.replace(':', '')}"
    if (fingerprint := _FINGERPRINT.fullmatch(plain)) is not None:
        entries.fingerprints.add(bytes.fromhex(fingerprint[1]))
    elif (serial := _SERIAL.fullmatch(plain)) is not None:
        entries.serials.add(int(serial[1], 16))
    elif OWNER.fullmatch(line) or _CERTIFICATE_OWNER.fullmatch(line):
        entries.owners.add(line)
    else:
        return False
    return True


def _serial(der: bytes) -> int:
    """Of a certificate that TLS has verified, which is therefore well formed (RFC 5280, 4.1)."""
    at = 0
    for _ in range(2):  # into the certificate, and what of it is signed
        at, _end = _entered(der, at, _SEQUENCE)
    if der[at] == _VERSION:
        _, at = _entered(der, at, _VERSION)
    start, end = _entered(der, at, _INTEGER)
    return int.from_bytes(der[start:end], "big")


def _entered(der: bytes, at: int, tag: int) -> tuple[int, int]:
    """Where the contents of the element at this place begin and end."""
    if der[at] != tag:
        raise AuthError("the client certificate has no readable serial number", metadata={"problem": "unnamed"})
    length, start = der[at + 1], at + 2
    if length & 0x80:
        count = length & 0x7F
        length, start = int.from_bytes(der[start : start + count], "big"), start + count
    return start, start + length
