"""A TCP proxy between client and server that cuts connections where a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.network.forwarding import Carrier, Forwarder


class CuttingProxy(Forwarder):
    """Forwards to `target`; closes a connection once it carried as many bytes to the client as `cuts` says next."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        self._cuts = list(cuts)
        self.cuts_made = 0
        self.was_cut = threading.Event()
        super().__init__(target)

    def _carrier(self) -> Carrier:
        left = self._cuts.pop(0) if self._cuts else None

        def carry(data: bytes, sink: socket.socket) -> bool:
            nonlocal left
            if left is not None and len(data) > left:
                sink.sendall(data[:left])
                with self._lock:
                    self.cuts_made += 1
                self.was_cut.set()
                return False
            sink.sendall(data)
            left = None if left is None else left - len(data)
            return True

        return carry


@contextmanager
def cutting(target: str, cuts: list[int]) -> Iterator[CuttingProxy]:
    """Such a proxy for the length of a block."""
    proxy = CuttingProxy(target, cuts)
    try:
        yield proxy
    finally:
        proxy.close()
