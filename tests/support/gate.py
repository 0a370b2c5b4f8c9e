"""A TCP proxy that a test opens, holds or cuts while connections are under way."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

_PIECE_BYTES = 16_384


class Gate:
    """Forwards to `target`, which may be changed between two connections."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.cuts = 0
        self.to_client = 0
        """Bytes that all connections together have carried to clients."""
        self._cut_at: int | None = None
        self._silence_s = 0.0
        self._hold_at: int | None = None
        self._changed = threading.Condition()
        self._sockets: set[socket.socket] = set()
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def cut_after(self, count: int, silence_s: float = 0.0) -> None:
        """Close the connection that carries the byte after so many more to a client, which has time to read those."""
        with self._changed:
            self._cut_at = self.to_client + count
            self._silence_s = silence_s

    def hold_after(self, count: int) -> None:
        """Carry so many more bytes to clients, and then none until `open`."""
        with self._changed:
            self._hold_at = self.to_client + count

    def open(self) -> None:
        """Carry everything, also what was held."""
        with self._changed:
            self._cut_at = self._hold_at = None
            self._changed.notify_all()

    def lead_to(self, target: str) -> None:
        """From now on to another server; connections that there are end."""
        self.target = target
        self._end_connections()

    def close(self) -> None:
        self._closing.set()
        self._listener.close()
        self.open()
        self._end_connections()

    def _end_connections(self) -> None:
        with self._changed:
            sockets = list(self._sockets)
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                host, _, port = self.target.rpartition(":")
                try:
                    server = socket.create_connection((host, int(port)))
                except OSError:  # it is not there, which the client is told by the end of its connection
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._changed:
                    self._sockets |= {client, server}
                threading.Thread(target=self._pump, args=(client, server, False), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, True), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_counted: bool) -> None:
        with suppress(OSError):
            while data := source.recv(_PIECE_BYTES):
                if not is_counted:
                    sink.sendall(data)
                elif not self._carry(data, sink):
                    break
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._sockets -= {source, sink}
        source.close()

    def _carry(self, data: bytes, sink: socket.socket) -> bool:
        """To a client, as far as it is allowed; False if the connection ends here."""
        while data:
            with self._changed:
                self._changed.wait_for(lambda: self._hold_at is None or self.to_client < self._hold_at)
                if self._closing.is_set():
                    return False
                allowed = min(end - self.to_client for end in (self._cut_at, self._hold_at, 2**62) if end is not None)
                part, data = data[:allowed], data[allowed:]
                self.to_client += len(part)
                is_cut = self._cut_at is not None and self.to_client >= self._cut_at and bool(data)
                if is_cut:
                    self._cut_at = None
                    self.cuts += 1
            sink.sendall(part)
            if is_cut:
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
