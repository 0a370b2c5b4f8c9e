"""Owners with tokens, and files that let them in."""

from __future__ import annotations

import os
from pathlib import Path

from transparent_llm_server.access.bearer_tokens import new_bearer_token


class BearerTokenFile:
    """A file for `--tokens`, which is replaced whole when something in it changes."""

    def __init__(self, path: Path, *owners: str) -> None:
        self.path = path
        self._lines: dict[str, str] = {}
        self._write()
        self.bearer_tokens = {owner: self.add(owner) for owner in owners}

    def add(self, owner: str) -> str:
        """One more token of this owner."""
        token, line = new_bearer_token(owner)
        self._lines[token] = line
        self._write()
        return token

    def remove(self, token: str) -> None:
        del self._lines[token]
        self._write()

    def _write(self) -> None:
        replacement = self.path.with_suffix(".new")
        replacement.write_text("# who may call\n" + "".join(f"{line}\n" for line in self._lines.values()))
        os.replace(replacement, self.path)
