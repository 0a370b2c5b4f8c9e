"""What takes minutes is asked for by name; what is published is built once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.deploy.checkout import ROOT
from support.deploy.published import build
from transparent_llm.demo import server_process


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--install", action="store_true", help="install what is published, and use it: minutes")


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
