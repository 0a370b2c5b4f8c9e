"""Where a server listens, and who could reach it there."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.config import ServerConfig

_ONLY_THE_USER, _EVERYBODY = 0o177, 0o111
"""What a new socket file is not to allow."""

Credentials = Callable[[], grpc.ServerCredentials]
"""Makes those of one address: gRPC wants some for each."""


def require_protected(config: ServerConfig) -> None:
    """Refuse to be reached from other hosts without protection, unless that is wanted.

    Raises:
        InvalidRequestError: other hosts could call without saying who they are, or would send tokens in the clear.
    """
    if config.insecure or not _is_exposed(config):
        return
    where = f"{config.listen} can be reached from other hosts"
    if not config.has_authentication:
        raise InvalidRequestError(
            f"{where}, and everybody there could use the models: ask for tokens over TLS (--tokens, --tls-cert, "
            "--tls-key) or for client certificates (--tls-client-ca), listen on 127.0.0.1 or unix:PATH, or say "
            "--insecure"
        )
    if config.tls_cert is None:
        raise InvalidRequestError(
            f"{where}, and tokens would travel in the clear: add --tls-cert and --tls-key, listen on 127.0.0.1 or "
            "unix:PATH, or say --insecure"
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


def listen_on(server: grpc.Server, listen: str, credentials: Credentials | None = None) -> int:
    """Have a server listen at every address of HOST:PORT, and tell the port.

    gRPC is content with one of the addresses that a name has. At the others another server might answer.

    Raises:
        RuntimeError: one of them is taken or cannot be bound.
        InvalidRequestError: it is neither HOST:PORT nor a socket file.
    """
    host, _, port = listen.rpartition(":")
    is_unix = listen.startswith(("unix:", "unix-abstract:"))
    if not is_unix and not (host and port.isdigit()):
        raise InvalidRequestError(f"cannot listen on {listen!r}: write HOST:PORT, as 127.0.0.1:50051, or unix:PATH")
    addresses = [] if is_unix else _addresses(host)
    if not addresses:
        return _add(server, listen, credentials)
    number = int(port) or _free_port(addresses)
    for address in addresses:
        _add(server, f"[{address}]:{number}" if ":" in address else f"{address}:{number}", credentials)
    return number


def _add(server: grpc.Server, address: str, credentials: Credentials | None) -> int:
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials())


def _addresses(host: str) -> list[str]:
    """Of a name; none of what is an address itself or what gRPC alone can read."""
    addresses = _resolved(host)
    if host.strip("[]") in addresses:
        return []
    if host == "localhost":  # clients of gRPC take it for both, whatever /etc/hosts says
        addresses += [loopback for loopback in ("127.0.0.1", "::1") if _is_here(loopback)]
    return list(dict.fromkeys(addresses))


def _resolved(host: str) -> list[str]:
    """The addresses of a name or an address; none if nobody knows it."""
    try:
        found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM) if host else []
    except OSError:
        return []
    return [str(address[0]) for *_, address in found]


def _is_here(address: str) -> bool:
    try:
        _bound(address, 0).close()
    except OSError:
        return False
    return True


def _free_port(addresses: Sequence[str]) -> int:
    """One that is free at all of them."""
    while True:
        with ExitStack() as stack:
            number: int = stack.enter_context(_bound(addresses[0], 0)).getsockname()[1]
            try:
                for address in addresses[1:]:
                    stack.enter_context(_bound(address, number))
            except OSError:
                continue
            return number


def _bound(address: str, port: int) -> socket.socket:
    return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)


def _is_exposed(config: ServerConfig) -> bool:
    """Whether anything but this host can reach it. What cannot be told counts as exposed."""
    if config.is_unix:
        return False
    addresses = _resolved(config.listen.rpartition(":")[0])
    return not addresses or not all(ipaddress.ip_address(address).is_loopback for address in addresses)
