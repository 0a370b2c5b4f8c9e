"""Who could reach a server where it listens: other hosts only with protection, a socket file by its mode."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config.server import ServerConfig

_ONLY_THE_USER, _EVERYBODY = 0o177, 0o111
"""What a new socket file is not to allow."""


def require_protected(config: ServerConfig) -> None:
    """Refuse to be reached from other hosts without protection, unless that is wanted.

    Raises:
        InvalidRequestError: other hosts could call without saying who they are, or would send tokens in the clear; or
            there is a page for callers who are known by their certificates alone.
    """
    if config.page is not None:
        _require_page_of_tokens(config)
    exposed = [listen for listen in (config.listen, config.page) if listen is not None and _is_exposed(listen)]
    if config.insecure or not exposed:
        return
    where = f"{' and '.join(exposed)} can be reached from other hosts"
    if not config.has_authentication:
        raise InvalidRequestError(
            f"{where}, and everybody there could use the models: require tokens over TLS (--tokens, --tls-cert, "
            "--tls-key) or client certificates (--tls-client-ca), listen on 127.0.0.1 or unix:PATH, or pass "
            "--insecure"
        )
    if config.tls_cert is None:
        raise InvalidRequestError(
            f"{where}, and tokens would be sent in the clear: add --tls-cert and --tls-key, listen on 127.0.0.1 or "
            "unix:PATH, or pass --insecure"
        )


@contextmanager
def socket_file_mode(config: ServerConfig) -> Iterator[None]:
    """A socket file made in this block is for its user alone, or for everybody where callers must say who they are.

    By the process's mask, as a mode that is set afterwards would come too late for whoever is quick.
    """
    if not config.is_unix:
        yield
        return
    before = os.umask(_EVERYBODY if config.has_authentication else _ONLY_THE_USER)
    try:
        yield
    finally:
        os.umask(before)


def addresses_of(host: str) -> list[str]:
    """The addresses of a name or an address; none if nobody knows it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM) if host else []
    except OSError:
        return []
    return [str(address[0]) for *_, address in found]


def _require_page_of_tokens(config: ServerConfig) -> None:
    """A page's calls reach gRPC from within this process: the certificates of browsers do not come with them."""
    if config.tls_client_ca is not None and config.tokens_file is None:
        raise InvalidRequestError(
            "page needs --tokens where there is --tls-client-ca: a certificate lets a browser connect to the page, but "
            "does not say whose its calls are. Add --tokens, or serve the page behind a proxy that has a certificate"
        )


def _is_exposed(listen: str) -> bool:
    """Whether anything but this host can reach an address. What cannot be told counts as exposed."""
    if listen.startswith("unix:"):
        return False
    addresses = addresses_of(listen.rpartition(":")[0])
    return not addresses or not all(ipaddress.ip_address(address).is_loopback for address in addresses)
