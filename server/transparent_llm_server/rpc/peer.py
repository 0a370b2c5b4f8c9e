"""Who is at the other end of a call: the client itself, or a browser behind this process's own port for pages."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import grpc

_FORWARDED = "x-transparent-llm-forwarded"
_SECRET = secrets.token_hex(32)
"""Of this process: nobody outside can say where a call comes from."""


@dataclass(frozen=True)
class Peer:
    """The other end of a call."""

    address: str
    """Host and port, as gRPC writes them."""

    is_browser: bool = False
    """Whether it came by the port for pages."""

    @property
    def kind(self) -> str:
        """Where that is: unix, loopback or remote."""
        return kind_of_peer(self.address)


def forwarded(host: str, port: int) -> tuple[str, str]:
    """Metadata of a call that this process makes for a browser at this address."""
    address = f"ipv6:[{host}]:{port}" if ":" in host else f"ipv4:{host}:{port}"
    return _FORWARDED, f"{_SECRET} {address}"


def peer_of(context: grpc.ServicerContext) -> Peer:
    """Of a call. Whoever says that it was forwarded and does not know the secret is believed nothing."""
    for key, value in context.invocation_metadata():
        if key == _FORWARDED:
            secret, _, address = str(value).partition(" ")
            if secrets.compare_digest(secret.encode(), _SECRET.encode()):
                return Peer(address, is_browser=True)
    return Peer(context.peer())


def kind_of_peer(address: str) -> str:
    """Where a call comes from, by gRPC's name of its other end: unix, loopback or remote."""
    if address.startswith("unix:"):
        return "unix"
    return "loopback" if address.startswith(("ipv4:127.", "ipv6:[::1]", "ipv6:%5B::1%5D")) else "remote"
