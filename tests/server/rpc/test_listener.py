"""Where a server listens: at every address of a name, or not at all."""

from __future__ import annotations

import socket
import tempfile
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.version import __version__
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc.listener import host_and_port, listen_on


@pytest.fixture
def server() -> Iterator[grpc.Server]:
    made = grpc.server(ThreadPoolExecutor(1), options=[("grpc.so_reuseport", 0)])
    yield made
    made.stop(None)


def taken(address: str, port: int = 0) -> socket.socket:
    """A socket that listens there; skips where this machine has no such address."""
    try:
        return socket.create_server((address, port), family=socket.AF_INET6 if ":" in address else socket.AF_INET)
    except OSError as error:
        pytest.skip(f"{address} is not here: {error}")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_name_of_which_one_address_is_taken_is_taken(address: str) -> None:
    with closing(taken(address)) as holder:
        listen = f"localhost:{holder.getsockname()[1]}"
        server = Server(ServerConfig(listen=listen))
        with pytest.raises(InvalidRequestError, match=f"cannot listen on {listen}: is it in use by another server"):
            server.start()


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_a_free_port_of_a_name_is_one_of_all_its_addresses(address: str) -> None:
    taken(address).close()
    with running(listen="localhost:0") as server:
        port = int(server.address.removeprefix("localhost:"))
        with socket.create_connection((address, port), timeout=10):
            pass


@pytest.mark.parametrize("listen", ["127.0.0.1:{0}", "[::1]:{0}", "0.0.0.0:{0}", "[::]:{0}"])
def test_an_address_is_listened_at_as_it_is(listen: str, server: grpc.Server) -> None:
    port = listen_on(server, listen.format(0))
    assert port > 0
    with pytest.raises(RuntimeError):
        listen_on(server, listen.format(port))


@pytest.mark.parametrize("listen", ["localhost", "localhost:", "localhost:many", ":50051", ":", ""])
def test_what_is_no_address_is_an_error(listen: str, server: grpc.Server) -> None:
    with pytest.raises(InvalidRequestError, match="write HOST:PORT or unix:PATH with a port from 0 to 65535"):
        listen_on(server, listen)


@pytest.mark.parametrize("port", ["99999", "65536", "-1", "+1", "0x50", "1e3", "1_000", " 80", "\u0663", "9" * 5000])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
@pytest.mark.parametrize("setting", ["listen", "probe_listen", "metrics_listen"])
def test_a_port_that_is_none_is_an_error_and_no_other_port(setting: str, host: str, port: str) -> None:
    settings = {"listen": "127.0.0.1:0", setting: f"{host}:{port}"}
    with pytest.raises(InvalidRequestError, match="with a port from 0 to 65535"):
        start(**settings)


def start(**settings: Any) -> None:
    """A server that must not start."""
    server = Server(ServerConfig(**settings))
    try:
        server.start()
    finally:
        server.stop()


def test_the_last_port_is_one() -> None:
    assert host_and_port("it is", "[::1]:65535") == ("::1", 65535)


# Socket files


@pytest.fixture
def path() -> Iterator[Path]:
    """Short, as sockets' paths must be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "llm.sock"


def refusal(server: grpc.Server, path: object) -> str:
    with pytest.raises(InvalidRequestError) as refused:
        listen_on(server, f"unix:{path}")
    return refused.value.message


def test_a_socket_that_nobody_listens_at_is_replaced(server: grpc.Server, path: Path) -> None:
    left_behind(path)
    assert listen_on(server, f"unix:{path}") == 1


def left_behind(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def test_a_socket_whose_server_takes_no_more_connections_is_taken(server: grpc.Server, path: Path) -> None:
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(str(path))
        listener.listen(0)
        with suppress(BlockingIOError):
            while True:  # until its backlog is full
                waiting = stack.enter_context(socket.socket(socket.AF_UNIX))
                waiting.setblocking(False)
                waiting.connect(str(path))
        assert refusal(server, path) == f"cannot listen on unix:{path}: another server listens there"
    assert path.is_socket()


def test_a_symbolic_link_is_left_alone(server: grpc.Server, path: Path) -> None:
    target = path.with_name("other.sock")
    path.symlink_to(target)
    words = f"cannot listen on unix:{path}: a symbolic link is there; remove it, or name what it points to"
    assert refusal(server, path) == words  # to nothing
    left_behind(target)
    assert refusal(server, path) == words  # to a socket that nobody listens at
    assert path.is_symlink()
    assert target.is_socket()


def test_a_socket_in_a_folder_that_is_not_there_is_an_error(server: grpc.Server, path: Path) -> None:
    missing = path.parent / "missing" / "llm.sock"
    assert refusal(server, missing) == f"cannot listen on unix:{missing}: there is no folder {missing.parent}"


def test_a_path_that_is_too_long_for_a_socket_is_an_error(server: grpc.Server, path: Path) -> None:
    long = path.with_name("x" * 108)
    assert refusal(server, long) == f"cannot listen on unix:{long}: a socket's path has at most 107 bytes"


def test_a_socket_of_another_kind_is_an_error(server: grpc.Server, path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        assert "a socket is there that cannot be taken over" in refusal(server, path)
    assert path.is_socket()


def test_a_host_that_nobody_knows_is_an_error(server: grpc.Server) -> None:
    with pytest.raises(RuntimeError):
        listen_on(server, "no.such.host.invalid:0")


def test_a_socket_file_is_no_name(server: grpc.Server, tmp_path: object) -> None:
    assert listen_on(server, f"unix:{tmp_path}/socket") == 1


def test_a_socket_without_a_file_is_told_as_it_was_given() -> None:
    listen = f"unix-abstract:transparent-llm-{uuid.uuid4()}"
    with running(listen=listen, insecure=True) as server:
        assert server.address == listen
        with RemoteTransparentLlm(server.address, timeout_s=30) as llm:
            assert llm.server_info().server_version == __version__
