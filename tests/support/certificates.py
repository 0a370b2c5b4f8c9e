"""Real certificates in files, made for one test run."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509

LONG_AGO = datetime.datetime(2001, 1, 1, tzinfo=datetime.timezone.utc)


@dataclass(frozen=True)
class Pair:
    """A certificate and its key."""

    cert: Path
    key: Path

    @property
    def as_server(self) -> dict[str, Path]:
        return {"tls_cert": self.cert, "tls_key": self.key}

    @property
    def as_client(self) -> dict[str, str]:
        return {"tls_cert": str(self.cert), "tls_key": str(self.key)}

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


class Authority:
    """Issues certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ca = trustme.CA()
        self._count = 0
        self.path = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(str(self.path))

    def issue(self, *names: str, common_name: str | None = None, expired: bool = False) -> Pair:
        """A certificate of these alternative names."""
        self._count += 1
        until = LONG_AGO if expired else None
        issued = self._ca.issue_cert(*names, common_name=common_name, not_after=until)
        pair = Pair(self._folder / f"{self._count}.pem", self._folder / f"{self._count}.key")
        pair.cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        pair.key.write_bytes(issued.private_key_pem.bytes())
        return pair
