"""Clients that know their values, at work until they are told to stop."""

from __future__ import annotations

import random
import threading
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from support.servers.backends import local_model
from support.servers.polling import wait_until
from transparent_llm import RemoteTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

CASES = 24
READS: tuple[tuple[Any, ...], ...] = (
    ("logits",),
    ("residual_out", 2),
    ("attention_matrix", 1, 1, 0),
    ("decomposed_attn", 0, 3),
    ("decomposed_ffn_out", 2, 1, 5),
)


def rows(case: int) -> list[list[int]]:
    """Tokens of a batch, whose logits are a few megabytes."""
    chance = random.Random(case)
    return [[chance.randrange(1, 1000) for _ in range(chance.randrange(40, 64))] for _ in range(8)]


@cache
def expected(case: int) -> dict[tuple[Any, ...], torch.Tensor]:
    """From the same model in this process."""
    llm = local_model(DEMO_MODEL).copy()
    llm.run_tokens(rows(case))
    return {read: getattr(llm, read[0])(*read[1:]) for read in READS}


class Load:
    """What some clients did."""

    def __init__(self, address: str, clients: int) -> None:
        self.counts: Counter[str] = Counter()
        self.errors: list[str] = []
        self._change, self._enough = threading.Lock(), threading.Event()
        self._threads = [threading.Thread(target=self._work, args=(address, seed)) for seed in range(clients)]

    @property
    def calls(self) -> int:
        return self.counts["calls"]

    def await_calls(self, more: int) -> None:
        """Until so many more have been answered, while something is done to the servers."""
        wanted = self.calls + more
        wait_until(lambda: self.errors or self.calls >= wanted, within_s=120)

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _work(self, address: str, seed: int) -> None:
        chance = random.Random(seed)
        settings: dict[str, Any] = {"cache_bytes": 0, "read_ahead_bytes": 0, "shared_memory": False}
        with RemoteTransparentLlm(address, timeout_s=120, **settings) as llm:
            try:
                while not self._enough.is_set():
                    self._round(llm, chance)
            except Exception:
                self._count(lost=1)
                self.errors.append(traceback.format_exc())

    def _round(self, llm: RemoteTransparentLlm, chance: random.Random) -> None:
        case = chance.randrange(CASES)
        llm.run_tokens(rows(case))
        self._count(calls=1)
        for read in chance.sample(READS, 3):
            value = getattr(llm, read[0])(*read[1:])
            self._count(calls=1, wrong=not torch.equal(value, expected(case)[read]))

    def _count(self, **more: int) -> None:
        with self._change:
            self.counts.update(more)


@contextmanager
def load(address: str, clients: int = 16) -> Iterator[Load]:
    """Clients at work for as long as the block takes; all of them have been answered when it begins."""
    for case in range(CASES):
        expected(case)
    made = Load(address, clients)
    made.start()
    try:
        made.await_calls(4 * clients)
        yield made
    finally:
        made.stop()
