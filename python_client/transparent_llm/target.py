"""What a client calls: HOST:PORT, unix:PATH or another of gRPC's targets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from transparent_llm.errors import InvalidRequestError

_WITH_ADDRESSES = re.compile(r"(?:(?:dns|ipv4|ipv6):(?://[^/]*/)?)?(.*)", re.DOTALL)
_WITHOUT_PORTS = ("unix:", "unix-abstract:", "vsock:")
_NUMBER = re.compile(r"[0-9]{1,5}")
_LAST_PORT = 65_535


def require_ports(target: str) -> None:
    """Refuse a port that is none. gRPC would call another one: it cuts 99999 to 34463, and makes 443 of nothing.

    Raises:
        InvalidRequestError: a port that is neither a number from 1 to 65535 nor the name of a service.
    """
    for port in _ports(target):
        if port.isalpha() or (_NUMBER.fullmatch(port) and 1 <= int(port) <= _LAST_PORT):
            continue
        raise InvalidRequestError(
            f"cannot call {target!r}: its port is {port!r}; write 1 to {_LAST_PORT}, as in 127.0.0.1:50051"
        )


def _ports(target: str) -> Iterator[str]:
    """Of all addresses in a target that have one."""
    found = _WITH_ADDRESSES.fullmatch(target)
    if found is None or target.startswith(_WITHOUT_PORTS) or "://" in found[1]:  # a scheme of somebody else
        return
    for address in found[1].split(","):
        host, colon, port = address.rpartition(":")
        if colon and (host.endswith("]") or ":" not in host):  # an IPv6 address without brackets has no port
            yield port
