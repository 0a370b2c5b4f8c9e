"""Modules of this folder in processes of their own: servers that say where they listen, workers that take orders."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

_SCRIPTS = Path(__file__).parents[1]


@contextmanager
def peer_process(module: str, *arguments: object) -> Iterator[str]:
    """The address that a peer prints once it listens; it ends with the block."""
    with _process(module, *arguments) as process:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"the peer {module} did not start")
        yield address


class Worker:
    """A process that does as it is told: a line of JSON in, a line of JSON out."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def tell(self, order: object) -> None:
        """Send an order, without waiting for what comes of it."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()

    def hear(self) -> Any:
        """The answer to the oldest order that has none yet."""
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())

    def ask(self, order: object) -> Any:
        """Send an order and wait for the answer."""
        self.tell(order)
        return self.hear()


@contextmanager
def workers(count: int, module: str, *arguments: object) -> Iterator[Sequence[Worker]]:
    """Several of a kind, which end with the block."""
    with ExitStack() as stack:
        yield [Worker(stack.enter_context(_process(module, *arguments))) for _ in range(count)]


def obey(answer: Callable[[Any], object]) -> None:
    """In a worker's process: answer orders until there are no more."""
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


def only_child() -> int:
    """The id of the one process that this one has started and that still runs (Linux)."""
    found = [int(child) for file in Path("/proc/self/task").glob("*/children") for child in file.read_text().split()]
    if len(found) != 1:
        raise RuntimeError(f"one child process was expected, there are {len(found)}")
    return found[0]


@contextmanager
def _process(module: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", f"peers.{module}", *map(str, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=_SCRIPTS, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.terminate()
