"""A worker with clients in threads, each reading one small value again and again. Run with the server's address.

An order says how many clients read for how many seconds, and what: an attention matrix, or with "unembed" the scores of
a vector. The answer is how many milliseconds each read took.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from peers.processes import obey
from transparent_llm import RemoteTransparentLlm, connect

N_TOKENS = 64


class Clients:
    """Clients that nothing is kept for, so that each read is a call; each has a run of its own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._clients: list[RemoteTransparentLlm] = []

    def read(self, order: dict[str, Any]) -> list[float]:
        """All clients at the same time."""
        count = int(order["clients"])
        while len(self._clients) < count:
            self._clients.append(connect(self._address, cache_bytes=0))
            first = len(self._clients)
            self._clients[-1].run_tokens([list(range(first, first + N_TOKENS))])
        if not count:
            return []
        until = time.perf_counter() + order["seconds"]
        with ThreadPoolExecutor(count) as pool:
            name = order.get("read", "attention_matrix")
            each = pool.map(lambda client: read_until(_action(client, name), until), self._clients[:count])
        return [taken for one in each for taken in one]


def _action(client: RemoteTransparentLlm, name: str) -> Callable[[], object]:
    if name == "attention_matrix":
        return lambda: client.attention_matrix(0, 1, 0)
    vector = torch.linspace(-1, 1, client.model_info().d_model)
    return lambda: client.unembed(vector, True)


def read_until(read: Callable[[], object], until: float) -> list[float]:
    """Milliseconds of each read, one after the other."""
    taken, started = [], time.perf_counter()
    while started < until:
        read()
        ended = time.perf_counter()
        taken.append(1e3 * (ended - started))
        started = ended
    return taken


if __name__ == "__main__":
    obey(Clients(sys.argv[1]).read)
