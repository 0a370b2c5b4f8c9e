"""The files of this checkout, as git tells them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]

needs_a_checkout = pytest.mark.skipif(
    not (ROOT / ".git").exists(), reason="no checkout: git tells which files belong to the project"
)


def project_files(*folders: str) -> list[str]:
    """Names of the project's files, below these folders if any are named; what is not committed yet is among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *folders]
    names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
    return [name for name in names if (ROOT / name).is_file()]
