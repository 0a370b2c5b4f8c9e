"""One process of clients: `soak_client.py ADDRESS EXPECTED SECONDS SEED THREADS`. Prints what happened as JSON."""

from __future__ import annotations

import json
import logging
import random
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import torch
from safetensors.torch import load_file

from soak.cases import CASES, FAMILIES, READS, key, rows
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import BusyError, DeadlineError

COUNTS: Counter[str] = Counter()
CHANGE = threading.Lock()
AT_ONCE = 3
"""Runs that a thread goes back and forth between, so that the server forgets some of them meanwhile."""


class Reruns(logging.Handler):
    """Counts what the client says about runs that the server had lost."""

    def emit(self, record: logging.LogRecord) -> None:
        count("reruns", "no longer has run" in record.msg)


def count(what: str, number: int = 1) -> None:
    with CHANGE:
        COUNTS[what] += number


class Client:
    """A run that is read again and again."""

    def __init__(self, llm: RemoteTransparentLlm, hasty: RemoteTransparentLlm, family: str) -> None:
        self.llm, self.hasty, self.family = llm.copy(), hasty.copy(), family

        self.case: int | None = None

    def run(self, case: int) -> None:
        self.llm.run_tokens(rows(case))
        self.case = case
        count("calls")

    def read(self, expected: dict[str, torch.Tensor], chance: random.Random) -> None:
        assert self.case is not None
        read = chance.choice(READS)
        value = getattr(self.llm, read[0])(*read[1:])
        count("calls")
        if not torch.equal(value, expected[key(self.family, self.case, read)]):
            count("wrong")

    def give_up(self) -> None:
        """A call whose time is too short."""
        try:
            self.hasty.run_tokens(rows(self.case or 0))
            count("calls")
        except DeadlineError:
            count("cancelled")


def work(clients: list[Client], expected: dict[str, torch.Tensor], until: float, seed: int) -> None:
    chance = random.Random(seed)
    try:
        while time.monotonic() < until:
            client, what = chance.choice(clients), chance.random()
            try:
                if what < 0.2 or client.case is None:
                    client.run(chance.randrange(CASES))
                elif what < 0.25:
                    client.give_up()
                else:
                    client.read(expected, chance)
            except BusyError as error:
                count("busy")
                time.sleep(error.retry_after_s or 0.1)
    except BaseException as error:
        count("lost")
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    count("ended")


def main(address: str, file: str, seconds: str, seed: str, n_threads: str) -> None:
    torch.set_num_threads(1)
    logging.getLogger("transparent_llm").setLevel(logging.DEBUG)
    logging.getLogger("transparent_llm").addHandler(Reruns())
    expected, began = load_file(Path(file)), time.monotonic()
    settings = {"shared_memory": False, "cache_bytes": 0, "read_ahead_bytes": 0}
    servers = [
        (
            RemoteTransparentLlm(address, model=family, timeout_s=120, **settings),  # type: ignore[arg-type]
            RemoteTransparentLlm(address, model=family, timeout_s=0.002, **settings),  # type: ignore[arg-type]
            family,
        )
        for family in FAMILIES
    ]
    threads = []
    for number in range(int(n_threads)):
        clients = [Client(*servers[(number + k) % len(servers)]) for k in range(AT_ONCE)]
        arguments = (clients, expected, began + float(seconds), int(seed) * 1000 + number)
        threads.append(threading.Thread(target=work, args=arguments, daemon=True))
        threads[-1].start()
    for thread in threads:
        thread.join(float(seconds) + 120)
    print(json.dumps({"began": began, **COUNTS}))


if __name__ == "__main__":
    main(*sys.argv[1:])
