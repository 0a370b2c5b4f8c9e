"""A TCP relay that counts what goes through it, both ways: what a call really puts on the wire."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class CountingRelay:
    """Listens on a port of its own and passes every connection on to a server."""

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._counts = {"up": 0, "down": 0}  # one writer each, as there is one connection
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"

    def bytes_of(self, action: Callable[[], object]) -> int:
        """What a call and its answer take on the wire, frames and flow control included."""
        before = sum(self._counts.values())
        action()
        return sum(self._counts.values()) - before

    def serve(self) -> None:
        """Pass on until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
                self._sockets += [client, server]
                for source, sink, way in ((client, server, "up"), (server, client, "down")):
                    threading.Thread(target=self._pass_on, args=(source, sink, way), daemon=True).start()

    def close(self) -> None:
        """End all connections."""
        for held in self._sockets:
            with contextlib.suppress(OSError):
                held.shutdown(socket.SHUT_RDWR)
            held.close()

    def _pass_on(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 20):
                self._counts[way] += len(data)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@contextmanager
def counting_relay(target: str) -> Iterator[CountingRelay]:
    """A relay that runs within the block."""
    relay = CountingRelay(target)
    threading.Thread(target=relay.serve, daemon=True).start()
    try:
        yield relay
    finally:
        relay.close()
