"""HTTP/2 and gRPC by hand: compressed messages that are small until somebody unpacks them, from either side."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from support.servers.engines import SOON

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0x0, 0x1, 0x3, 0x4, 0x6, 0x7, 0x8
END_STREAM, ACK, END_HEADERS = 0x1, 0x1, 0x4
_INITIAL_WINDOW, _LARGEST_FRAME = 2**16 - 1, 2**14
_INITIAL_WINDOW_SETTING = 4


def bomb(unpacked_bytes: int) -> bytes:
    """A gRPC message of zeros, gzipped: a thousandth of what it becomes."""
    packer, block = zlib.compressobj(9, zlib.DEFLATED, 31), bytes(2**20)
    packed = b"".join(packer.compress(block) for _ in range(unpacked_bytes >> 20)) + packer.flush()
    return b"\x01" + struct.pack(">I", len(packed)) + packed


@dataclass(frozen=True)
class Frame:
    """As it came."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def ends_the_stream(self) -> bool:
        return self.kind in (RESET, GOAWAY) or (self.kind in (HEADERS, DATA) and bool(self.flags & END_STREAM))


class Peer:
    """One end of a connection, which keeps to the other's windows and answers its settings and pings."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._socket.settimeout(SOON)
        self._file = connected.makefile("rb")
        self._initial = _INITIAL_WINDOW
        self._windows = {0: _INITIAL_WINDOW}

    def greet(self) -> None:
        """As a client."""
        self._socket.sendall(PREFACE)
        self.send(SETTINGS, 0, 0)

    def be_greeted(self) -> None:
        """As a server."""
        assert self._exactly(len(PREFACE)) == PREFACE
        self.send(SETTINGS, 0, 0)

    def send(self, kind: int, flags: int, stream: int, payload: bytes = b"") -> None:
        head = len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
        self._socket.sendall(head + payload)

    def send_headers(self, stream: int, headers: Mapping[str, str], flags: int = END_HEADERS) -> None:
        self.send(HEADERS, flags, stream, b"".join(_literal(name, value) for name, value in headers.items()))

    def send_data(self, stream: int, data: bytes, flags: int = 0) -> Frame | None:
        """All of it as room comes, or the frame by which the other end wants no more."""
        self._windows.setdefault(stream, self._initial)
        sent = 0
        while sent < len(data):
            room = min(self._windows[0], self._windows[stream], _LARGEST_FRAME, len(data) - sent)
            if room <= 0:
                if (frame := self.read()).ends_the_stream:
                    return frame
                continue
            is_last = sent + room == len(data)
            self.send(DATA, flags if is_last else 0, stream, data[sent : sent + room])
            self._windows[0] -= room
            self._windows[stream] -= room
            sent += room
        return None

    def read(self) -> Frame:
        """The next frame."""
        head = self._exactly(9)
        stream = int.from_bytes(head[5:], "big") & 0x7FFFFFFF
        frame = Frame(head[3], head[4], stream, self._exactly(int.from_bytes(head[:3], "big")))
        self._heed(frame)
        return frame

    def await_end(self, stream: int) -> Frame:
        """The frame that ends a stream."""
        while (frame := self.read_end()).stream not in (0, stream):
            pass
        return frame

    def read_end(self) -> Frame:
        """The next frame that ends any stream, or all of them."""
        while not (frame := self.read()).ends_the_stream:
            pass
        return frame

    def _heed(self, frame: Frame) -> None:
        if frame.kind == SETTINGS and not frame.flags & ACK:
            for name, value in struct.iter_unpack(">HI", frame.payload):
                if name == _INITIAL_WINDOW_SETTING:
                    self._change_windows(value)
            self.send(SETTINGS, ACK, 0)
        elif frame.kind == PING and not frame.flags & ACK:
            self.send(PING, ACK, 0, frame.payload)
        elif frame.kind == WINDOW_UPDATE:
            (more,) = struct.unpack(">I", frame.payload)
            self._windows[frame.stream] = self._windows.get(frame.stream, self._initial) + more

    def _change_windows(self, initial: int) -> None:
        for stream in self._windows:
            self._windows[stream] += initial - self._initial if stream else 0
        self._initial = initial

    def _exactly(self, count: int) -> bytes:
        data = self._file.read(count)
        if len(data) < count:
            raise EOFError("the other end hung up")
        return data


def call_with(message: bytes, address: str, path: str, **metadata: str) -> bytes:
    """Call a server with a gzipped message made by hand; the payload of the frame that ended the call."""
    with _connected(address) as peer:
        peer.send_headers(1, {**_call(address, path), "grpc-encoding": "gzip", **metadata})
        return (peer.send_data(1, message, END_STREAM) or peer.await_end(1)).payload


@contextmanager
def silent_calls(address: str, path: str, count: int) -> Iterator[Peer]:
    """A connection with so many calls that have begun, on the streams 1, 3, 5 and so on, and send nothing."""
    with _connected(address) as peer:
        for number in range(count):
            peer.send_headers(2 * number + 1, _call(address, path))
        yield peer


@contextmanager
def _connected(address: str) -> Iterator[Peer]:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SOON) as connected:
        peer = Peer(connected)
        peer.greet()
        yield peer


def _call(address: str, path: str) -> dict[str, str]:
    """The headers that a call begins with."""
    call = {":method": "POST", ":scheme": "http", ":path": path, ":authority": address}
    return {**call, "content-type": "application/grpc", "te": "trailers"}


@contextmanager
def answering_with(message: bytes) -> Iterator[str]:
    """The address of a server that gives this gzipped message to whoever calls whatever."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_answer_all, args=(listening, message), daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        with suppress(OSError):  # wakes the thread that accepts
            listening.shutdown(socket.SHUT_RDWR)


def _answer_all(listening: socket.socket, message: bytes) -> None:
    with suppress(OSError):
        while True:
            connected, _ = listening.accept()
            threading.Thread(target=_answer, args=(connected, message), daemon=True).start()


def _answer(connected: socket.socket, message: bytes) -> None:
    with connected, suppress(OSError, EOFError):
        peer = Peer(connected)
        peer.be_greeted()
        while True:
            frame = peer.read()
            if frame.kind == HEADERS:
                answer = {":status": "200", "content-type": "application/grpc", "grpc-encoding": "gzip"}
                peer.send_headers(frame.stream, answer)
                peer.send_data(frame.stream, message)
                peer.send_headers(frame.stream, {"grpc-status": "0"}, END_HEADERS | END_STREAM)


def _literal(name: str, value: str) -> bytes:
    """A header without any compression (RFC 7541, 6.2.2)."""
    parts = (name.encode(), value.encode())
    assert all(len(part) < 127 for part in parts), "longer lengths are not written here"
    return b"\0" + b"".join(bytes([len(part)]) + part for part in parts)
