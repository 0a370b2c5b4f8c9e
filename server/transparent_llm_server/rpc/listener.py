"""Where a server listens."""

from __future__ import annotations

import os
import re
import socket
import stat
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.access.exposure import addresses_of

_SOCKETS = ("unix:", "unix-abstract:")
"""A file, and a name that the kernel keeps without one."""

_PORT = re.compile(r"[0-9]{1,5}")
_LAST_PORT = 65_535
_LONGEST_PATH = 107
"""Bytes, of a socket file: what the kernel has room for."""

Credentials = Callable[[], grpc.ServerCredentials]
"""Makes those of one address: gRPC wants some for each."""


def listen_on(server: grpc.Server, listen: str, credentials: Credentials | None = None) -> int:
    """Have a server listen at every address of HOST:PORT, and tell the port.

    gRPC is content with one of the addresses that a name has. At the others another server might answer.

    Raises:
        RuntimeError: one of them is taken or cannot be bound.
        InvalidRequestError: it is neither HOST:PORT nor a socket file, or a file that is not to be replaced is there.
    """
    if listen.startswith("unix:"):
        _make_way(listen.removeprefix("unix:"))
    if listen.startswith(_SOCKETS):
        return _add(server, listen, credentials)
    host, port = host_and_port("cannot listen on", listen, "HOST:PORT or unix:PATH")
    addresses = _addresses(host)
    if not addresses:
        return _add(server, listen, credentials)
    number = port or _free_port(addresses)
    for address in addresses:
        _add(server, f"[{address}]:{number}" if ":" in address else f"{address}:{number}", credentials)
    return number


def sockets_at(host: str, port: int) -> list[socket.socket]:
    """Listening sockets at every address of a host, all at one port; 0 takes a free one.

    Raises:
        OSError: one of them is taken or cannot be bound.
    """
    addresses = _addresses(host) or [host]
    number = port or (_free_port(addresses) if len(addresses) > 1 else 0)
    with ExitStack() as stack:
        bound = [stack.enter_context(_bound(address, number)) for address in addresses]
        stack.pop_all()
    for each in bound:
        each.setblocking(False)
    return bound


def bound_address(listen: str, port: int) -> str:
    """Where a server listens that was told to at `listen` and found this port: what clients can be told."""
    return listen if listen.startswith(_SOCKETS) else f"{listen.rpartition(':')[0]}:{port}"


def host_and_port(what: str, listen: str, form: str = "HOST:PORT") -> tuple[str, int]:
    """The two parts of HOST:PORT, an IPv6 address without its brackets. The system would wrap a port that is too large.

    Raises:
        InvalidRequestError: it is something else; `what` begins the sentence, `form` says what could stand there.
    """
    host, _, port = listen.rpartition(":")
    if host and _PORT.fullmatch(port) and int(port) <= _LAST_PORT:
        return host.removeprefix("[").removesuffix("]"), int(port)
    raise InvalidRequestError(
        f"{what} {listen!r}: write {form} with a port from 0 to {_LAST_PORT}, as in 127.0.0.1:50051"
    )


def _make_way(path: str) -> None:
    """A socket file that nobody listens on any more is in the way of a new server."""
    where = f"cannot listen on unix:{path}"
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise InvalidRequestError(f"{where}: there is no folder {folder}")
    if len(os.fsencode(path)) > _LONGEST_PATH:
        raise InvalidRequestError(f"{where}: a socket's path has at most {_LONGEST_PATH} bytes")
    if os.path.islink(path):
        raise InvalidRequestError(f"{where}: a symbolic link is there; remove it, or name what it points to")
    if not os.path.exists(path):
        return
    if not stat.S_ISSOCK(os.stat(path).st_mode):
        raise InvalidRequestError(f"{where}: a file that is not a socket is there")
    try:
        if _has_listener(path):
            raise InvalidRequestError(f"{where}: another server listens there")
        os.unlink(path)
    except FileNotFoundError:
        return
    except OSError as error:
        raise InvalidRequestError(f"{where}: a socket is there that cannot be taken over: {error.strerror}") from None


def _has_listener(path: str) -> bool:
    """Whether a server listens at a socket file, also one that takes no more connections: it is not waited for."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            return True
    return True


def _add(server: grpc.Server, address: str, credentials: Credentials | None) -> int:
    if credentials is None:
        return server.add_insecure_port(address)
    return server.add_secure_port(address, credentials())


def _addresses(host: str) -> list[str]:
    """Of a name; none of what is an address itself or what gRPC alone can read."""
    addresses = addresses_of(host)
    if host.strip("[]") in addresses:
        return []
    if host == "localhost":  # clients of gRPC take it for both, whatever /etc/hosts says
        addresses += [loopback for loopback in ("127.0.0.1", "::1") if _is_here(loopback)]
    return list(dict.fromkeys(addresses))


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
