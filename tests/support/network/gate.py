"""A TCP proxy that a test opens, holds or interrupts while connections are under way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from support.network.forwarding import Carrier, Forwarder


class Gate(Forwarder):
    """Forwards to `target`, which may be changed between two connections."""

    def __init__(self, target: str) -> None:
        self.interruptions = 0
        self.to_client = 0
        """Bytes that all connections together have carried to clients."""
        self._interrupt_at: int | None = None
        self._silence_s = 0.0
        self._hold_at: int | None = None
        self._is_deaf = False
        self._changed = threading.Condition()
        self._closing = threading.Event()
        super().__init__(target)

    def interrupt_after(self, count: int, silence_s: float = 0.0) -> None:
        """Close the connection that carries the byte after so many more to a client, which has time to read those."""
        with self._changed:
            self._interrupt_at = self.to_client + count
            self._silence_s = silence_s

    def hold_after(self, count: int) -> None:
        """Carry so many more bytes to clients, and then none until `open`."""
        with self._changed:
            self._hold_at = self.to_client + count

    def hear_nothing(self) -> None:
        """Carry nothing more to the server until `open`."""
        with self._changed:
            self._is_deaf = True

    def open(self) -> None:
        """Carry everything, also what was held."""
        with self._changed:
            self._interrupt_at = self._hold_at = None
            self._is_deaf = False
            self._changed.notify_all()

    def lead_to(self, target: str) -> None:
        """From now on to another server; connections that there are end."""
        self.target = target
        self.end_connections()

    def close(self) -> None:
        """And end the connections that there are."""
        self._closing.set()
        super().close()
        self.open()
        self.end_connections()

    def _carrier(self) -> Carrier:
        return self._carry

    def _to_server(self, data: bytes, server: socket.socket) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: not self._is_deaf)
        return not self._closing.is_set() and super()._to_server(data, server)

    def _carry(self, data: bytes, sink: socket.socket) -> bool:
        """To a client, as far as it is allowed; False if the connection ends here."""
        while data:
            with self._changed:
                self._changed.wait_for(lambda: self._hold_at is None or self.to_client < self._hold_at)
                if self._closing.is_set():
                    return False
                ends = (self._interrupt_at, self._hold_at, 2**62)
                allowed = min(end - self.to_client for end in ends if end is not None)
                part, data = data[:allowed], data[allowed:]
                self.to_client += len(part)
                is_interrupted = self._interrupt_at is not None and self.to_client >= self._interrupt_at and bool(data)
                if is_interrupted:
                    self._interrupt_at = None
                    self.interruptions += 1
            sink.sendall(part)
            if is_interrupted:
                self._closing.wait(self._silence_s)
                return False
        return True


@contextmanager
def gate(target: str) -> Iterator[Gate]:
    """Such a proxy for the length of a block."""
    made = Gate(target)
    try:
        yield made
    finally:
        made.close()
