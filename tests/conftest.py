"""Backends: the same contract suite runs over each of them. `pytest tests/contract --backend=local,unix` chooses."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads: its idle threads leave the cores to others

import pytest
import torch

from support.models.families import FAMILIES, save
from support.servers.backends import BACKENDS, WITH_PROCESS, Backend, Served, start_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--backend", default=",".join(BACKENDS), help=f"comma list of {', '.join(BACKENDS)} (default all)")
    parser.addoption(
        "--long", action="store_true", help="the long form of the suites attack, chaos, cluster, fuzz and soak"
    )


def pytest_configure(config: pytest.Config) -> None:
    torch.set_num_threads(2)  # here and in the server processes: the same split of work gives the same bits
    os.environ["OMP_NUM_THREADS"] = "2"
    for name in (
        "ADDRESS",
        "TOKEN",
        "TLS_CA",
        "TLS_CERT",
        "TLS_KEY",
        "PROXY",
        "WEIGHTS_DIR",
    ):  # a developer's own settings are none of the tests'
        os.environ.pop(f"TRANSPARENT_LLM_{name}", None)


def chosen_backends(config: pytest.Config) -> list[str]:
    names = [name.strip() for name in str(config.getoption("--backend")).split(",")]
    unknown = set(names) - set(BACKENDS)
    if unknown:
        raise pytest.UsageError(f"unknown backend {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "backend" in metafunc.fixturenames:
        metafunc.parametrize("backend", chosen_backends(metafunc.config), indirect=True)


@pytest.fixture(scope="session")
def is_long(pytestconfig: pytest.Config) -> bool:
    """Whether the suites attack, chaos, cluster, fuzz and soak run in their long form."""
    return bool(pytestconfig.getoption("--long"))


@pytest.fixture(scope="session")
def family_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every family as a tiny random model on disk."""
    root = tmp_path_factory.mktemp("families")
    return {name: save(name, root / name) for name in FAMILIES}


@pytest.fixture(scope="session")
def started_backends(
    request: pytest.FixtureRequest, family_folders: dict[str, Path]
) -> Iterator[Callable[[str], Backend]]:
    """Starts the backends that tests will ask for, those with a server process side by side; they stay to the end."""
    calls = [item.callspec for item in request.session.items if hasattr(item, "callspec")]
    asked = {call.params["backend"] for call in calls if "backend" in call.params}
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        served = Served(family_folders, stack)

        def start(name: str) -> Backend:
            return stack.enter_context(start_backend(name, served))

        starting = {name: pool.submit(start, name) for name in BACKENDS if name in asked & WITH_PROCESS}
        yield cache(lambda name: starting[name].result() if name in starting else start(name))


@pytest.fixture
def backend(request: pytest.FixtureRequest, started_backends: Callable[[str], Backend]) -> Backend:
    """One way to reach all families."""
    return started_backends(request.param)
