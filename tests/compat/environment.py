"""Throw-away virtual environments with libraries of chosen versions.

What is not under test (torch, jaxtyping, tqdm, this project) is found behind them, in the environment that runs the
tests.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from dataclasses import dataclass
from pathlib import Path

import transparent_llm
import transparent_llm_server


@dataclass(frozen=True)
class Environment:
    """A virtual environment with one version of protobuf."""

    protobuf: str
    python: Path

    def run(self, *arguments: str | Path) -> str:
        """Standard output of its Python, in which any warning, of whatever library, is an error."""
        command: list[str | Path] = [self.python, "-I", "-W", "error", *arguments]
        process = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert process.returncode == 0, f"with protobuf {self.protobuf}:\n{process.stderr}"
        return process.stdout


def make_environment(root: Path, protobuf: str, **versions: str) -> Environment:
    """With this version of protobuf and those of other packages, by their names with underscores."""
    folder = root / protobuf
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    wanted = [f"protobuf=={protobuf}", "googleapis-common-protos"]
    wanted += [f"{name.replace('_', '-')}=={version}" for name, version in versions.items()]
    process = subprocess.run([*pip, "install", "--quiet", *wanted], capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    packages = [Path(str(package.__file__)).parents[1] for package in (transparent_llm, transparent_llm_server)]
    _append_to_path(python, [Path(sysconfig.get_path("purelib")), *packages])
    return Environment(protobuf, python)


def _append_to_path(python: Path, folders: list[Path]) -> None:
    """Folders that are searched after the environment's own packages; written once those are installed."""
    purelib = subprocess.check_output(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], text=True
    )
    Path(purelib.strip(), "behind.pth").write_text("\n".join(map(str, folders)), encoding="utf-8")
