"""A worker that streams a dense decomposition again and again. Run with the server's address and a number of tokens.

The order "start" is answered at once, "stop" with the bytes that came and the seconds that it went on.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field

import grpc

from peers.processes import obey
from peers.raw import RawStream
from transparent_llm.network.proxies import Route


@dataclass
class LongStream:
    """Goes on in a thread of its own from "start" to "stop"."""

    stream: RawStream
    received: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(default_factory=threading.Thread)
    started: float = 0.0

    def obey(self, order: str) -> dict[str, float]:
        if order == "start":
            self.received, self.started = 0, time.perf_counter()
            self.stopping.clear()
            self.thread = threading.Thread(target=self._go_on)
            self.thread.start()
            return {}
        self.stopping.set()
        self.thread.join()
        return {"bytes": self.received, "seconds": time.perf_counter() - self.started}

    def _go_on(self) -> None:
        while not self.stopping.is_set():
            for n_bytes in self.stream.decomposed_attn(0, 0):
                self.received += n_bytes
                if self.stopping.is_set():
                    break


if __name__ == "__main__":
    address, n_tokens = sys.argv[1:]
    with grpc.insecure_channel(address, Route(address).options) as channel:
        raw = RawStream(channel)
        raw.run([list(range(2, int(n_tokens) + 2))])
        obey(LongStream(raw).obey)
