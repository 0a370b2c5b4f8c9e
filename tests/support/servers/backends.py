"""The ways to reach a model: in this process, over gRPC to this process or another one, by socket file, over TLS,
through a proxy."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

from support.deploy.envoy import envoy_before
from support.servers.certificates import Authority
from support.servers.owners import BearerTokenFile
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.demo import server_process
from transparent_llm_server import TransformerLensTransparentLlm

Folders = dict[str, Path]
EVERYWHERE = "gpt2"
"""The family that every backend has."""


class Served:
    """The families of each backend, and one server process for those that reach it in different ways."""

    def __init__(self, folders: Folders, asked: Mapping[str, Set[str]], stack: ExitStack) -> None:
        self._folders = folders
        self._asked = asked
        self._stack = stack
        self._address = ""
        self._starting = threading.Lock()

    def of(self, *backends: str) -> Folders:
        """The families that are asked of one of them."""
        asked = set[str]().union(*(self._asked.get(backend, ()) for backend in backends))
        return {name: folder for name, folder in self._folders.items() if name in asked}

    @property
    def address(self) -> str:
        """Of the process, which starts when it is first asked for and ends with the stack."""
        with self._starting:
            if not self._address:
                self._address = self._stack.enter_context(server_process(*model_arguments(self.of("process", "envoy"))))
            return self._address


@dataclass(frozen=True)
class Backend:
    """Opens a model of the test families by name; each object has its own current run."""

    name: str
    open: Callable[[str], TransparentLlm]

    @property
    def is_remote(self) -> bool:
        return self.name != "local"


@cache
def local_model(folder: Path, dtype: torch.dtype = torch.float32) -> TransformerLensTransparentLlm:
    """Loaded once; take a copy() to run something."""
    return TransformerLensTransparentLlm(str(folder), dtype=dtype)


@contextmanager
def _local(served: Served) -> Iterator[Backend]:
    yield Backend("local", lambda name: local_model(served.of("local")[name]).copy())


@contextmanager
def _inproc(served: Served) -> Iterator[Backend]:
    models = {name: local_model(folder) for name, folder in served.of("inproc").items()}
    with running(serving=models, listen="127.0.0.1:0") as server, _remote("inproc", server.address) as backend:
        yield backend


@contextmanager
def _process(served: Served) -> Iterator[Backend]:
    with _remote("process", served.address) as backend:
        yield backend


@contextmanager
def _unix(served: Served) -> Iterator[Backend]:
    with tempfile.TemporaryDirectory() as folder:
        listen = ("--listen", f"unix:{folder}/llm.sock")
        models = model_arguments(served.of("unix"))
        with server_process(*models, *listen) as address, _remote("unix", address) as backend:
            yield backend


@contextmanager
def _tls(served: Served) -> Iterator[Backend]:
    """Certificates both ways, and a token."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        authority, file = Authority(folder / "authority"), BearerTokenFile(folder / "tokens", "owner")
        ca, own = str(authority.path), authority.issue("localhost")
        client = authority.issue("client.example", common_name="client")
        access = ("--tls-cert", str(own.cert), "--tls-key", str(own.key), "--tls-client-ca", ca)
        arguments = (*model_arguments(served.of("tls")), *access, "--tokens", str(file.path), "--listen", "localhost:0")
        options = {"tls_ca": ca, **client.as_client, "token": file.bearer_tokens["owner"]}
        with server_process(*arguments) as address, _remote("tls", address, **options) as backend:
            yield backend


@contextmanager
def _envoy(served: Served) -> Iterator[Backend]:
    """The project's own proxy configuration before the server process."""
    with tempfile.TemporaryDirectory() as name, envoy_before(served.address, Path(name)) as proxy:
        with _remote("envoy", proxy.address) as backend:
            yield backend


@contextmanager
def _remote(name: str, address: str, **options: Any) -> Iterator[Backend]:
    clients: dict[str, RemoteTransparentLlm] = {}

    def open_model(model: str) -> TransparentLlm:
        clients.setdefault(model, RemoteTransparentLlm(address, model=model, timeout_s=60, **options))
        return clients[model].copy()

    yield Backend(name, open_model)
    for client in clients.values():
        client.close()


def model_arguments(folders: Folders) -> list[str]:
    """Command line of a server for all of them."""
    return [argument for name, folder in folders.items() for argument in ("--model", f"{name}={folder}")]


BACKENDS: dict[str, Callable[[Served], AbstractContextManager[Backend]]] = {
    "local": _local,
    "inproc": _inproc,
    "process": _process,
    "unix": _unix,
    "tls": _tls,
    "envoy": _envoy,
}

WITH_PROCESS = {"process", "unix", "tls", "envoy"}
"""Those that wait for a server process to start."""


def start_backend(name: str, served: Served) -> AbstractContextManager[Backend]:
    """The backend of that name."""
    return BACKENDS[name](served)
