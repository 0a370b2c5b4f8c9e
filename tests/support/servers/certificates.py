"""Real certificates in files, made for one test run."""

from __future__ import annotations

import datetime
import ssl
from dataclasses import dataclass
from pathlib import Path

import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

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
    def as_secret(self) -> dict[str, bytes]:
        """As a Secret of the kind kubernetes.io/tls has it."""
        return {"tls.crt": self.cert.read_bytes(), "tls.key": self.key.read_bytes()}

    @property
    def serial(self) -> int:
        return x509.load_pem_x509_certificate(self.cert.read_bytes()).serial_number


def shown_serial(address: tuple[str, int]) -> int:
    """Of the certificate that a new connection is shown."""
    return x509.load_pem_x509_certificate(ssl.get_server_certificate(address).encode()).serial_number


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
        until = LONG_AGO if expired else None
        issued = self._ca.issue_cert(*names, common_name=common_name, not_after=until)
        return self._save(b"".join(blob.bytes() for blob in issued.cert_chain_pems), issued.private_key_pem.bytes())

    def issue_without_a_name(self) -> Pair:
        """What no good authority does."""
        signed, key = self._signed([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "nobody")])
        pem, form, no = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return self._save(signed.public_bytes(pem), key.private_bytes(pem, form, no))

    def issue_with_number(self, number: int) -> bytes:
        """A certificate of this serial number (PEM)."""
        signed, _ = self._signed([x509.NameAttribute(x509.NameOID.COMMON_NAME, "alice")], number)
        return signed.public_bytes(serialization.Encoding.PEM)

    def _signed(
        self, subject: list[x509.NameAttribute[str]], number: int | None = None
    ) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
        key = ec.generate_private_key(ec.SECP256R1())
        authority = x509.load_pem_x509_certificate(self._ca.cert_pem.bytes())
        unsigned = (
            x509.CertificateBuilder()
            .subject_name(x509.Name(subject))
            .issuer_name(authority.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number() if number is None else number)
            .not_valid_before(authority.not_valid_before_utc)
            .not_valid_after(authority.not_valid_after_utc)
        )
        signing = serialization.load_pem_private_key(self._ca.private_key_pem.bytes(), None)
        assert isinstance(signing, ec.EllipticCurvePrivateKey)
        return unsigned.sign(signing, hashes.SHA256()), key

    def _save(self, chain: bytes, key: bytes) -> Pair:
        self._count += 1
        pair = Pair(self._folder / f"{self._count}.pem", self._folder / f"{self._count}.key")
        pair.cert.write_bytes(chain)
        pair.key.write_bytes(key)
        return pair
