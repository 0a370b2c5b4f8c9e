"""What is published of this checkout, built as `make dist` builds it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """The sdist of a source tree, and the wheel that is made of that sdist."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    finished = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel
