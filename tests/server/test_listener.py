"""Where a server listens: at every address of a name, or not at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import grpc
import pytest

from support.servers import running
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.app import Server
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.listener import listen_on


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
        with pytest.raises(InvalidRequestError, match=f"cannot listen on {listen}: is it taken by another server"):
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
    with pytest.raises(InvalidRequestError, match="write HOST:PORT"):
        listen_on(server, listen)


def test_a_host_that_nobody_knows_is_an_error(server: grpc.Server) -> None:
    with pytest.raises(RuntimeError):
        listen_on(server, "no.such.host.invalid:0")


def test_a_socket_file_is_no_name(server: grpc.Server, tmp_path: object) -> None:
    assert listen_on(server, f"unix:{tmp_path}/socket") == 1
