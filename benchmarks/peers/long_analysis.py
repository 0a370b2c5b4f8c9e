"""A worker that asks for one layer of a contribution graph again and again. Run with the server's address and a number
of tokens.

The order "start" is answered at once, "stop" with how many answers came and the seconds that it went on.
"""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import dataclass, field

from peers.processes import obey
from transparent_llm import RemoteTransparentLlm, connect

READ = ("contribution_edges", 0, 0, 0.04, True, "l1")


@dataclass
class LongAnalysis:
    """Goes on in a thread of its own from "start" to "stop", which waits for the last answer."""

    llm: RemoteTransparentLlm
    answers: int = 0
    stopping: threading.Event = field(default_factory=threading.Event)
    thread: threading.Thread = field(default_factory=threading.Thread)
    started: float = 0.0

    def obey(self, order: str) -> dict[str, float]:
        if order == "start":
            self.answers, self.started = 0, time.perf_counter()
            self.stopping.clear()
            self.thread = threading.Thread(target=self._go_on)
            self.thread.start()
            return {}
        self.stopping.set()
        self.thread.join()
        return {"answers": self.answers, "seconds": time.perf_counter() - self.started}

    def _go_on(self) -> None:
        while not self.stopping.is_set():
            self.llm.fetch([READ])
            self.answers += 1


if __name__ == "__main__":
    address, n_tokens = sys.argv[1:]
    with connect(address, cache_bytes=0) as remote:
        remote.run_tokens([list(range(2, int(n_tokens) + 2))])
        obey(LongAnalysis(remote).obey)
