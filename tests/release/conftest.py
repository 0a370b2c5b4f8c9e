"""What takes minutes is asked for by name; what is published is built once."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from transparent_llm.demo import server_process

ROOT = Path(__file__).parents[2]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--install", action="store_true", help="install what is published, and use it: minutes")


def build(source: Path, folder: Path) -> tuple[Path, Path]:
    """The sdist of a source tree, and the wheel that is made of that sdist; with the command of `make dist`."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, source]
    finished = subprocess.run(command, cwd=source, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Sdist and wheel of this checkout."""
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="session")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[1]


@pytest.fixture(scope="session")
def asked_for(pytestconfig: pytest.Config) -> None:
    if not pytestconfig.getoption("--install", default=False):
        pytest.skip("installs torch twice, minutes: make dist-test, or --install")


@pytest.fixture(scope="session")
def address() -> Iterator[str]:
    """A server of the demo model, out of this checkout."""
    with server_process() as address:
        yield address
