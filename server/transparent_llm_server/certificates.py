"""The server's certificate, its key, and the authorities of its clients: read again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from functools import partial
from pathlib import Path

import grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.watched_files import WatchedFiles

log = logging.getLogger(__name__)


class Certificates:
    """Files for TLS. What was last good counts while they do not fit together.

    Raises:
        InvalidRequestError: a file cannot be read, is not what it should be, or does not belong to the other.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None) -> None:
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._read()  # what is wrong with them is told now

    def credentials(self) -> grpc.ServerCredentials:
        """For one port: new connections get what the files hold then."""
        paths = (self._cert, self._key) if self._client_ca is None else (self._cert, self._key, self._client_ca)
        files = WatchedFiles(paths, every_s=0.0)  # before they are read: a change meanwhile is seen later
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            partial(self._changed, files, threading.Lock()),  # type: ignore[arg-type]  # None is allowed, not by stubs
            require_client_authentication=self._client_ca is not None,
        )

    def read_again(self) -> None:
        """Say now what new connections will get."""
        try:
            self._read()
            log.info("%s was read again: it holds for new connections", self._cert)
        except InvalidRequestError as error:
            log.warning("%s; what was read before still counts", error)

    def _changed(self, files: WatchedFiles, lock: threading.Lock) -> grpc.ServerCertificateConfiguration | None:
        """What to go on with, None for what there was: asked by gRPC before each handshake of a port."""
        with lock:
            if not files.have_changed():
                return None
            try:
                changed = self._read()
            except InvalidRequestError as error:
                log.warning("%s; what was read before still counts", error)
                return None
            log.info("%s was read again", self._cert)
            return changed

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = _bytes(self._cert), _bytes(self._key)
        authorities = None if self._client_ca is None else _bytes(self._client_ca)
        _require_pair(self._cert, self._key)
        if self._client_ca is not None:
            _require_authorities(self._client_ca)
        if (chain, key) != (_bytes(self._cert), _bytes(self._key)):
            raise InvalidRequestError(f"{self._cert} and {self._key} changed while they were read")
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def certificates(config: ServerConfig) -> Certificates | None:
    """Those that a server is configured with; None: it speaks without TLS.

    Raises:
        InvalidRequestError: one is named without the other that it needs, or cannot be used.
    """
    if config.tls_cert is None and config.tls_key is None and config.tls_client_ca is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise InvalidRequestError("TLS needs both --tls-cert and --tls-key: the certificate's file and its key's")
    return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidRequestError(f"cannot read {path}: {error.strerror}") from None


def _require_pair(cert: Path, key: Path) -> None:
    """gRPC itself would only write into its log, and then refuse every client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_verify_locations(cert)
    except ssl.SSLError as error:
        raise InvalidRequestError(f"{cert} has no certificate in PEM form ({error.reason or error})") from None
    try:
        context.load_cert_chain(cert, key, password=_no_password)
    except (ssl.SSLError, _IsEncryptedError) as error:
        why = getattr(error, "reason", None) or error
        raise InvalidRequestError(
            f"{key} is no private key in PEM form, unencrypted, of the first certificate in {cert} ({why})"
        ) from None


def _require_authorities(path: Path) -> None:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_verify_locations(path)
    except ssl.SSLError as error:
        raise InvalidRequestError(f"{path} has no certificate in PEM form ({error.reason or error})") from None


class _IsEncryptedError(Exception):
    """Nobody is there to type a password."""


def _no_password() -> str:
    raise _IsEncryptedError("it is encrypted")
