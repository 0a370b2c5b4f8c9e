"""A worker that keeps many runs waiting. Run with the server's address, the owner's token, and how many.

The order "start" is answered once they wait, "stop" with how many were computed and how many were told BUSY.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field

from peers.processes import obey
from transparent_llm import RemoteTransparentLlm, connect
from transparent_llm.errors import BusyError

ROWS, TOKENS = 8, 128
"""Of each run, the other owner's too."""

_SETTLING_S = 0.5
_NO_ROOM_S = 0.02


def batch(number: int) -> list[list[int]]:
    """Token ids that no other number has."""
    high, low = divmod(number, 900)
    return [[2 + row, 2 + low, 2 + high, *range(10, TOKENS + 7)] for row in range(ROWS)]


@dataclass
class Crowd:
    """Each of its threads runs something new as soon as it has an answer."""

    llm: RemoteTransparentLlm
    count: int
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1000))
    counts: Counter[str] = field(default_factory=Counter)
    stopping: threading.Event = field(default_factory=threading.Event)
    threads: list[threading.Thread] = field(default_factory=list)

    def obey(self, order: str) -> dict[str, int]:
        if order == "start":
            self.counts.clear()
            self.stopping.clear()
            self.threads = [threading.Thread(target=self._go_on) for _ in range(self.count)]
            for thread in self.threads:
                thread.start()
            time.sleep(_SETTLING_S)
            return {}
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return dict(self.counts)

    def _go_on(self) -> None:
        while not self.stopping.is_set():
            try:
                self.llm.run_tokens(batch(next(self.numbers)))
                self.counts["computed"] += 1
            except BusyError:
                self.counts["busy"] += 1
                time.sleep(_NO_ROOM_S)


if __name__ == "__main__":
    address, token, count = sys.argv[1:]
    with connect(address, token=token) as remote:
        obey(Crowd(remote, int(count)).obey)
