"""A bare socket: some bytes for each byte that is sent. Run with the number of bytes."""

from __future__ import annotations

import socket
import sys

import numpy as np

_READY = b"?"


def serve(n_bytes: int) -> None:
    payload = np.arange(n_bytes // 4, dtype=np.float32).data.cast("B")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        print(f"127.0.0.1:{listener.getsockname()[1]}", flush=True)
        connection, _ = listener.accept()
        with connection:
            while connection.recv(1):
                connection.sendall(payload)


def connect(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host, int(port)))


def read(connection: socket.socket, n_bytes: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The bytes in fresh memory."""
    dense = np.empty(n_bytes // 4, np.float32)
    memory, position = dense.data.cast("B"), 0
    connection.sendall(_READY)
    while position < n_bytes:
        position += connection.recv_into(memory[position:])
    return dense


if __name__ == "__main__":
    serve(int(sys.argv[1]))
