"""Backends: the contract suite runs over each of them. `pytest tests/contract --backend=unix` runs all of it there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from itertools import cycle, product
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch loads: its idle threads leave the cores to others

import pytest
import torch
from xdist.scheduler import LoadScopeScheduling

from support.models.families import FAMILIES, save
from support.servers.backends import BACKENDS, EVERYWHERE, WITH_PROCESS, Backend, Served, start_backend


def pytest_addoption(parser: pytest.Parser) -> None:
    names = ", ".join(BACKENDS)
    parser.addoption("--backend", help=f"comma list of {names}: every family over each (default: over some)")
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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadScopeScheduling:
    return WholeFiles(config, log)


class WholeFiles(LoadScopeScheduling):
    """`pytest -n 2`: a file's tests stay in one process, as they share servers; so do those of all of `contract`."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return "contract" if file.startswith("tests/contract/") else file


def chosen_backends(config: pytest.Config) -> list[str]:
    """Those that the command line names, or none."""
    names = [name.strip() for name in (config.getoption("--backend") or "").split(",") if name.strip()]
    unknown = set(names) - set(BACKENDS)
    if unknown:
        raise pytest.UsageError(f"unknown backend {', '.join(sorted(unknown))}; there are {', '.join(BACKENDS)}")
    return names


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    asked = {"backend", "family"} & {*metafunc.fixturenames}
    chosen = chosen_backends(metafunc.config)
    if asked == {"backend", "family"}:
        pairs = list(product(chosen, FAMILIES)) if chosen else covering_pairs()
        metafunc.parametrize(("backend", "family"), pairs, indirect=["backend"])
    elif asked == {"backend"}:
        metafunc.parametrize("backend", chosen or list(BACKENDS), indirect=True)


def covering_pairs() -> list[tuple[str, str]]:
    """(backend, family): each family in this process and over one backend in turn, `EVERYWHERE` over all of them.

    What a family computes and how its tensors travel know nothing of each other: every family is compared with plain
    Hugging Face, every backend with the model in this process, and each pair would only do both again.
    """
    remote = [name for name in BACKENDS if name != "local"]
    turns = dict(zip(FAMILIES, cycle(remote)))
    return [
        (backend, family)
        for family in FAMILIES
        for backend in BACKENDS
        if backend in ("local", turns[family]) or family == EVERYWHERE
    ]


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
    """Starts the backends that tests will ask for, with the families that they will ask of them.

    Those with a server process start side by side; all stay to the end.
    """
    asked: dict[str, set[str]] = {}
    for item in request.session.items:
        chosen = item.callspec.params if hasattr(item, "callspec") else {}
        if "backend" in chosen:
            asked.setdefault(chosen["backend"], {EVERYWHERE}).add(chosen.get("family", EVERYWHERE))
    with ExitStack() as stack, ThreadPoolExecutor() as pool:
        served = Served(family_folders, asked, stack)

        def start(name: str) -> Backend:
            return stack.enter_context(start_backend(name, served))

        starting = {name: pool.submit(start, name) for name in WITH_PROCESS & asked.keys()}
        yield cache(lambda name: starting[name].result() if name in starting else start(name))


@pytest.fixture
def backend(request: pytest.FixtureRequest, started_backends: Callable[[str], Backend]) -> Backend:
    """One way to reach all families."""
    return started_backends(request.param)
