"""Where a server is: a gRPC target, taken apart as far as the client must understand it."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from urllib.parse import unquote

from transparent_llm.errors import InvalidRequestError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

DEFAULT_PORT = 50_051
DEFAULT_TARGET = f"127.0.0.1:{DEFAULT_PORT}"

_OF_THIS_HOST = ("unix", "unix-abstract", "vsock")
_OF_ADDRESSES = ("dns", "ipv4", "ipv6")
_OTHERS = ("xds", "google-c2p")
_WITHOUT_PORT = re.compile(r"[^:/\[\]%,]+|\[[^/\[\]]+\]")
"""A name or an IPv4 address; an IPv6 address, which is in brackets where a port could follow."""

_NUMBER = re.compile("[0-9]{1,5}")
_LARGEST_PORT = 65_535
_LONGEST_PATH = 107
"""Bytes, of a socket file: what the kernel has room for."""


_PRIVATE = tuple(
    ipaddress.ip_network(block)
    for block in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",  # of carriers and overlay networks
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::/128",
        "::1/128",
        "fc00::/7",
        "fe80::/10",
    )
)
_PRIVATE_ENDINGS = (
    *("corp", "home", "home.arpa", "internal", "intranet", "lan"),
    *("local", "localdomain", "localhost", "private", "svc", "test"),
)
"""Of names that no public server has."""


@dataclass(frozen=True)
class Host:
    """A name or an address, and the port if it is told."""

    name: str
    port: int | None = None

    @property
    def address(self) -> IpAddress | None:
        """Of one that is written as numbers; an IPv4 address within IPv6 counts as itself."""
        try:
            found = ipaddress.ip_address(self.name.partition("%")[0])
        except ValueError:
            return None
        return getattr(found, "ipv4_mapped", None) or found

    @property
    def is_loopback(self) -> bool:
        """Whether it is this machine, as far as its name tells."""
        address = self.address
        return address.is_loopback if address is not None else self._label in ("localhost", "")

    @property
    def is_private(self) -> bool:
        """Whether it is this machine or one of a private network, as far as its name tells: nothing is resolved."""
        address = self.address
        if address is not None:
            return any(address in block for block in _PRIVATE if block.version == address.version)
        last = self._label.rpartition(".")[2]
        is_number = last[:1].isdigit()  # 127.1 is an address to resolvers, and no public name ends so
        return "." not in self._label or is_number or f".{self._label}".endswith(_DOTTED_ENDINGS)

    @property
    def _label(self) -> str:
        return self.name.rstrip(".").lower()


_DOTTED_ENDINGS = tuple(f".{ending}" for ending in _PRIVATE_ENDINGS)


@dataclass(frozen=True)
class Target:
    """A target: its scheme, and its hosts where they are known."""

    scheme: str
    hosts: tuple[Host, ...]

    @property
    def is_of_this_host(self) -> bool:
        """Whether it is a socket that no network leads to."""
        return self.scheme in _OF_THIS_HOST

    @property
    def is_local(self) -> bool:
        """Whether it names this host."""
        return self.scheme.startswith("unix") or (bool(self.hosts) and all(host.is_loopback for host in self.hosts))

    @property
    def is_private(self) -> bool:
        """Whether one of its hosts is this one or in a private network."""
        return self.is_of_this_host or any(host.is_private for host in self.hosts)


def parsed(target: str) -> Target:
    """A target as gRPC reads it.

    Raises:
        InvalidRequestError: a port that there is not, a URL, or signs that no address has.
    """
    if not isinstance(target, str) or not target or not target.isprintable() or " " in target:
        raise InvalidRequestError(f"{target!r} is not a server address: write HOST:PORT or unix:PATH")
    scheme, _, rest = target.partition(":")
    if scheme == "unix" and len(rest.removeprefix("//").encode()) > _LONGEST_PATH:
        raise InvalidRequestError(f"cannot call {target!r}: a socket's path has at most {_LONGEST_PATH} bytes")
    if scheme in _OF_THIS_HOST or scheme in _OTHERS:
        return Target(scheme, ())
    if scheme not in _OF_ADDRESSES:
        scheme, rest = "dns", target
    elif rest.startswith("//"):
        rest = rest[2:].partition("/")[2]
    if "://" in rest:
        place = target.partition("://")[2].partition("/")[0] or "HOST:PORT"
        security = ', and set tls_ca, to "system" perhaps, for TLS' if target.startswith("https:") else ""
        raise InvalidRequestError(f"{target!r} is a URL, not a server address: write {completed(place)!r}{security}")
    found = Target(scheme, tuple(host(part, target) for part in unquote(rest).split(",")))
    if scheme != "dns" and any(place.address is None for place in found.hosts):
        raise InvalidRequestError(f"cannot call {target!r}: {scheme}: takes numeric addresses only")
    return found


def completed(target: str) -> str:
    """A target with the usual port, where it is a host without one: gRPC's own default is 443, where no server is."""
    return f"{target}:{DEFAULT_PORT}" if _WITHOUT_PORT.fullmatch(str(target)) else target


def host(text: str, whole: str) -> Host:
    """HOST, HOST:PORT or [V6]:PORT.

    Args:
        text: Of this host.
        whole: What the user wrote, for errors.

    Raises:
        InvalidRequestError: a port that is no number from 1 to 65535.
    """
    found = re.fullmatch(r"\[(?P<v6>[^\]]*)\](?::(?P<v6_port>.*))?|(?P<name>[^:]*):(?P<port>[^:]*)", text)
    if found is None:
        return Host(text)
    name, port = (found["v6"], found["v6_port"]) if found["v6"] is not None else (found["name"], found["port"])
    return Host(name, None if port is None else _port(port, whole))


def _port(text: str, whole: str) -> int | None:
    """A number; gRPC would wrap 99999 to 34463, and make 443 of nothing. None: the name of a service, as "https"."""
    if text.isascii() and text.isalpha():
        return None
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= _LARGEST_PORT:
        raise InvalidRequestError(
            f"cannot call {whole!r}: its port is {text!r}; write 1 to {_LARGEST_PORT}, as in 127.0.0.1:50051"
        )
    return int(text)
