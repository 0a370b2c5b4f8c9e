"""A client's driver: a process that is told in JSON what to call, and says what came."""

from __future__ import annotations

import json
import queue
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[2]
ANSWER_S = 90.0
"""The longest that any answer may take."""


class DriverFailure(Exception):
    """The driver did not do what it should; nothing is known of the client."""


class Driver:
    """A running one."""

    def __init__(self, process: subprocess.Popen[str], log: IO[str]) -> None:
        self._process, self._log = process, log
        self._answers: queue.Queue[str] = queue.Queue()
        self._count = 0
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """The answer to one request, with `ok` or `error`.

        Raises:
            DriverFailure: it does not come, or is none.
        """
        assert self._process.stdin is not None
        self._count += 1
        try:
            self._process.stdin.write(json.dumps({"id": self._count, "op": op, **fields}) + "\n")
            self._process.stdin.flush()
            line = self._answers.get(timeout=ANSWER_S)
            answer = json.loads(line)
        except queue.Empty:
            raise DriverFailure(f"no answer to {op} {fields} within {ANSWER_S:g} s{self._said()}") from None
        except (OSError, ValueError) as error:
            raise DriverFailure(f"no answer to {op} {fields}: {error}{self._said()}") from None
        if not isinstance(answer, dict) or answer.get("id") != self._count or ("ok" in answer) == ("error" in answer):
            raise DriverFailure(f"this is no answer to request {self._count}: {line[:300]}")
        if answer.get("error", {}).get("class") == "DriverError":
            raise DriverFailure(f"{op} {fields}: {answer['error'].get('message')}{self._said()}")
        return answer

    def end(self) -> int:
        """End its input; the code with which it exits."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(ANSWER_S)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _said(self) -> str:
        self._log.seek(0)
        said = self._log.read().strip()
        return f"\n{said[-2000:]}" if said else ""


@contextmanager
def driving(command: list[str]) -> Iterator[Driver]:
    """Such a process, which ends with the block."""
    with (
        tempfile.TemporaryFile("a+") as log,
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as process,
    ):
        try:
            yield Driver(process, log)
        finally:
            process.kill()
