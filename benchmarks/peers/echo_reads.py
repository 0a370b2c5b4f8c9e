"""A worker with clients of the echo in threads, as `small_reads` has them of a server. Run with the echo's address."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc

from peers import echo
from peers.processes import obey
from peers.small_reads import read_until
from transparent_llm.network.proxies import Route


class Clients:
    """As those of `small_reads`, they share a connection."""

    def __init__(self, address: str) -> None:
        self._bare = grpc.insecure_channel(address, Route(address).options).unary_stream(echo.PATH)

    def read(self, order: dict[str, Any]) -> list[float]:
        """All clients at the same time; milliseconds of each read."""
        until = time.perf_counter() + order["seconds"]
        with ThreadPoolExecutor(order["clients"]) as pool:
            each = pool.map(lambda _: read_until(lambda: list(self._bare(b"")), until), range(order["clients"]))
        return [taken for one in each for taken in one]


if __name__ == "__main__":
    obey(Clients(sys.argv[1]).read)
