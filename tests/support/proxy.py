"""A TCP proxy between client and server that cuts connections where a test wants it."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class CuttingProxy:
    """Forwards to `target`; closes a connection once it carried as many bytes to the client as `cuts` says next."""

    def __init__(self, target: str, cuts: list[int]) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._cuts = list(cuts)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.cuts_made = 0
        self.was_cut = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target)
                except OSError:  # it is not there, which the client is told by the end of its connection
                    client.close()
                    continue
                with self._lock:
                    allowed = self._cuts.pop(0) if self._cuts else None
                threading.Thread(target=self._pump, args=(client, server, None), daemon=True).start()
                threading.Thread(target=self._pump, args=(server, client, allowed), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, allowed: int | None) -> None:
        carried = 0
        with suppress(OSError):
            while data := source.recv(65536):
                if allowed is not None and carried + len(data) > allowed:
                    sink.sendall(data[: allowed - carried])
                    with self._lock:
                        self.cuts_made += 1
                    self.was_cut.set()
                    break
                sink.sendall(data)
                carried += len(data)
        for side in (source, sink):
            with suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)
            side.close()


@contextmanager
def cutting(target: str, cuts: list[int]) -> Iterator[CuttingProxy]:
    """Such a proxy for the length of a block."""
    proxy = CuttingProxy(target, cuts)
    try:
        yield proxy
    finally:
        proxy.close()
