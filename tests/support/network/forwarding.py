"""What TCP proxies of tests have in common: connections that are forwarded, and a word on each piece for the client."""

from __future__ import annotations

import logging
import socket
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress

log = logging.getLogger(__name__)
Carrier = Callable[[bytes, socket.socket], bool]
"""Carries a piece to a client; False if the connection ends here."""


class Forwarder(ABC):
    """Listens on loopback and forwards to `target`. What it carries to clients goes through `_carrier`."""

    def __init__(self, target: str) -> None:
        self.target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits for the next one: it would wait for ever
        self._listener.close()

    def end_connections(self) -> None:
        """Those that there are."""
        with self._lock:
            sockets = list(self._sockets)
        for end in sockets:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    @abstractmethod
    def _carrier(self) -> Carrier:
        """For a connection that has just been made."""

    def _to_server(self, data: bytes, server: socket.socket) -> bool:
        server.sendall(data)
        return True

    def _accept(self) -> None:
        with suppress(OSError):  # the end of the listener
            while True:
                client, _ = self._listener.accept()
                try:
                    self._forward(client)
                except OSError as error:  # mostly nobody is at the target: the client's connection ends, too
                    log.warning("no connection to %s: %s", self.target, error)
                    client.close()

    def _forward(self, client: socket.socket) -> None:
        target = self.target
        host, _, port = target.rpartition(":")
        server = socket.create_connection((host, int(port)))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets |= {client, server}
        for source, sink, carry in ((client, server, self._to_server), (server, client, self._carrier())):
            threading.Thread(target=self._pump, args=(source, sink, carry), daemon=True).start()
        if target != self.target:  # changed meanwhile: this one came too late to be ended with the others
            client.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, sink: socket.socket, carry: Carrier) -> None:
        with suppress(OSError):
            while (data := source.recv(65536)) and carry(data, sink):
                pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._sockets -= {source, sink}
        source.close()
