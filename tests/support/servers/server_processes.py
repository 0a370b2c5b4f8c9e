"""A server as a process whose output and log can be read."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TIMEOUT_S = 240


@contextmanager
def process(
    *arguments: str, script: Path | None = None, before: Sequence[str] = (), **streams: Any
) -> Iterator[subprocess.Popen[str]]:
    """`transparent-llm serve`, or a script, behind a command like `prlimit` if `before` names one.

    It is killed if a test leaves it running. `streams` are arguments of Popen; what they do not say is readable.
    """
    serve = [str(script)] if script is not None else ["-m", "transparent_llm", "serve"]
    paths = os.pathsep.join(sys.path)  # where `support` is found
    with tempfile.TemporaryFile("w+") as log:
        running = subprocess.Popen(
            [*before, sys.executable, *serve, *arguments],
            text=True,
            env={**os.environ, "PYTHONPATH": paths},
            **{"stdout": subprocess.PIPE, "stderr": log, **streams},
        )
        running.log = log  # type: ignore[attr-defined]
        try:
            yield running
        finally:
            running.kill()
            running.wait()
            if running.stdout is not None:
                running.stdout.close()


def ready_address(running: subprocess.Popen[str]) -> str:
    assert running.stdout is not None
    line = running.stdout.readline()
    assert line.startswith("ready: "), log_of(running)
    return line.removeprefix("ready: ").strip()


def log_of(running: subprocess.Popen[str]) -> str:
    running.log.seek(0)  # type: ignore[attr-defined]
    text: str = running.log.read()  # type: ignore[attr-defined]
    return text
