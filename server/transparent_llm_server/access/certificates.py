"""The server's certificate, its key, and the authorities of its clients: read again when their files change."""

from __future__ import annotations

import logging
import ssl
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.access.audit_log import Tell, tell_nobody
from transparent_llm_server.access.watched_files import WatchedFiles
from transparent_llm_server.config import trusted_files
from transparent_llm_server.config.server import ServerConfig

log = logging.getLogger(__name__)
_MOST_BYTES = 4 * 2**20
"""Of each file; a bundle of all public authorities has a quarter of a megabyte."""


class Certificates:
    """Files for TLS. What was last good counts while they do not fit together.

    Raises:
        InvalidRequestError: a file cannot be read, may be changed by everybody, is not what it should be, or does not
            belong to the other.
    """

    def __init__(self, cert: Path, key: Path, client_ca: Path | None = None, tell: Tell = tell_nobody) -> None:
        self._cert, self._key, self._client_ca, self._tell = cert, key, client_ca, tell
        self._read()  # what is wrong with them is told now
        self._warn()

    def credentials(self) -> grpc.ServerCredentials:
        """For one port: new connections get what the files hold then."""
        paths = (self._cert, self._key) if self._client_ca is None else (self._cert, self._key, self._client_ca)
        files = WatchedFiles(paths, every_s=0.0)  # before they are read: a change meanwhile is seen later
        return grpc.dynamic_ssl_server_credentials(
            self._read(),
            partial(self._changed, files, threading.Lock()),  # type: ignore[arg-type]  # None is allowed, not by stubs
            require_client_authentication=self._client_ca is not None,
        )

    def contexts(self) -> Callable[[], ssl.SSLContext]:
        """For one port that is not gRPC's: gives what a new connection gets, by what the files hold then."""
        paths = (self._cert, self._key) if self._client_ca is None else (self._cert, self._key, self._client_ca)
        files, current = WatchedFiles(paths, every_s=0.0), self._context()

        def context() -> ssl.SSLContext:
            nonlocal current
            if files.have_changed():
                try:
                    current = self._context()
                except InvalidRequestError as error:
                    log.warning("%s; what was read before stays in effect", error)
            return current

        return context

    def _context(self) -> ssl.SSLContext:
        self._read()  # what is wrong with them is told
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        context.load_cert_chain(self._cert, self._key, password=_no_password)
        if self._client_ca is not None:
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_verify_locations(self._client_ca)
        return context

    def read_again(self) -> None:
        """Say now what new connections will get."""
        try:
            self._read()
            log.info("%s was read again: it applies to new connections", self._cert)
            self._warn()
        except InvalidRequestError as error:
            log.warning("%s; what was read before stays in effect", error)

    def _changed(self, files: WatchedFiles, lock: threading.Lock) -> grpc.ServerCertificateConfiguration | None:
        """What to go on with, None for what there was: asked by gRPC before each handshake of a port."""
        with lock:
            if not files.have_changed():
                return None
            try:
                changed = self._read()
            except InvalidRequestError as error:
                log.warning("%s; what was read before stays in effect", error)
                self._tell("not read", file=str(self._cert), why=str(error))
                return None
            log.info("%s was read again", self._cert)
            self._tell("read again", file=str(self._cert))
            self._warn()
            return changed

    def _warn(self) -> None:
        for path in (self._cert, self._client_ca):
            if path is not None:
                trusted_files.warn_of(path)
        trusted_files.warn_of(self._key, is_secret=True)

    def _read(self) -> grpc.ServerCertificateConfiguration:
        chain, key = (trusted_files.read(path, _MOST_BYTES) for path in (self._cert, self._key))
        authorities = None if self._client_ca is None else trusted_files.read(self._client_ca, _MOST_BYTES)
        _require_pair(self._cert, self._key)
        if self._client_ca is not None:
            _require_authorities(self._client_ca)
        if (chain, key) != (self._cert.read_bytes(), self._key.read_bytes()):
            raise InvalidRequestError(f"{self._cert} and {self._key} changed while they were read")
        return grpc.ssl_server_certificate_configuration([(key, chain)], authorities)


def certificates(config: ServerConfig, tell: Tell = tell_nobody) -> Certificates | None:
    """Those that a server is configured with; None: it speaks without TLS.

    Raises:
        InvalidRequestError: one is named without the other that it needs, or cannot be used.
    """
    if config.tls_cert is None and config.tls_key is None and config.tls_client_ca is None:
        return None
    if config.tls_cert is None or config.tls_key is None:
        raise InvalidRequestError("TLS requires both --tls-cert and --tls-key: the certificate file and its key file")
    return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca, tell)


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
            f"{key} is not the unencrypted PEM private key of the first certificate in {cert} ({why})"
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
