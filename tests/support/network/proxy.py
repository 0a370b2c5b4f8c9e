"""A TCP proxy between client and server that interrupts connections where a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.network.forwarding import Carrier, Forwarder


class InterruptingProxy(Forwarder):
    """Forwards to `target`; closes a connection once it carried as many bytes to the client as `after` says next."""

    def __init__(self, target: str, after: list[int]) -> None:
        self._after = list(after)
        self.interruptions = 0
        self.was_interrupted = threading.Event()
        super().__init__(target)

    def _carrier(self) -> Carrier:
        left = self._after.pop(0) if self._after else None

        def carry(data: bytes, sink: socket.socket) -> bool:
            nonlocal left
            if left is not None and len(data) > left:
                sink.sendall(data[:left])
                with self._lock:
                    self.interruptions += 1
                self.was_interrupted.set()
                return False
            sink.sendall(data)
            left = None if left is None else left - len(data)
            return True

        return carry


@contextmanager
def interrupting(target: str, after: list[int]) -> Iterator[InterruptingProxy]:
    """Such a proxy for the length of a block."""
    proxy = InterruptingProxy(target, after)
    try:
        yield proxy
    finally:
        proxy.close()
