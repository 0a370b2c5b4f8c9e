"""Ports for programs that cannot be told to take a free one and say which."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import ExitStack, closing


def free_ports(count: int) -> list[int]:
    """So many different ones of loopback."""
    with ExitStack() as holding:
        held = [holding.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [int(each.getsockname()[1]) for each in held]


def free_port(hosts: Sequence[str]) -> int:
    """One that is free on all of these."""
    while True:
        with closing(socket.create_server((hosts[0], 0))) as first:
            port: int = first.getsockname()[1]
            try:
                for host in hosts[1:]:
                    socket.create_server((host, port)).close()
            except OSError:
                continue
            return port
