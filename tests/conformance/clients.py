"""The clients that are put to the test, as clients.toml names them."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from conformance.driver import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FILE = Path(__file__).parent / "clients.toml"


@dataclass(frozen=True)
class Client:
    """One row of the table."""

    name: str
    language: str
    """As documents call it."""

    driver: Sequence[str]
    """The command of its driver."""

    build: Sequence[str] = ()
    """The command that makes what `driver` starts."""

    through: str = ""
    """"envoy": it cannot reach a server without."""

    lacks: Sequence[str] = ()
    """What scenarios need and it has not yet."""

    @property
    def command(self) -> list[str]:
        return [part.replace("{python}", sys.executable) for part in self.driver]

    def make(self) -> bool:
        """Build its driver; whether that went well."""
        return not self.build or subprocess.run(self.build, cwd=ROOT).returncode == 0


def clients() -> dict[str, Client]:
    """By name, in the order of the file."""
    return {name: Client(name, **fields) for name, fields in tomllib.loads(FILE.read_text(encoding="utf-8")).items()}
