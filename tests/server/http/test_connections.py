"""Connections of browsers: so many, for so long, and over when the server is."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from support.network.grpc_web import asked, frame, web_call
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm.errors import InvalidRequestError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.http import endpoint

INFO = f"/{SERVICE}/ServerInfo"
RUN = requests.run(RunInput.of_tokens([[1, 2, 3, 4]]), "").SerializeToString()


def place(server: Server) -> tuple[str, int]:
    host, _, port = server.page_address.partition("://")[2].rpartition(":")
    return host, int(port)


@contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    with socket.create_connection(place(server), timeout=SOON) as connection:
        yield connection


def open_connections(server: Server) -> int:
    assert server._page is not None
    return len(server._page._state.connections)


@pytest.mark.parametrize("begun", [b"", b"GET", b"GET / HTTP/1.1\r\nhost: localhost\r\n"])
def test_who_sends_no_whole_head_is_left(begun: bytes) -> None:
    with running(page="127.0.0.1:0", request_arrival_s=0.4) as server, connected(server) as connection:
        connection.sendall(begun)
        assert connection.recv(1) == b""
        wait_until(lambda: open_connections(server) == 0)


def test_a_head_that_drips_is_not_waited_for() -> None:
    with running(page="127.0.0.1:0", request_arrival_s=0.4) as server, connected(server) as connection:
        connection.settimeout(0.05)
        for _ in range(600):
            try:
                connection.sendall(b"G")
                if connection.recv(1) == b"":
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        else:
            pytest.fail("it was heard to the end")


def test_a_second_request_has_the_same_time() -> None:
    with running(page="127.0.0.1:0", request_arrival_s=0.6) as server, connected(server) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        connection.sendall(b"HEAD / HT")
        assert connection.recv(1) == b""


def test_a_message_that_does_not_come_is_not_waited_for() -> None:
    with running(page="127.0.0.1:0", request_arrival_s=0.4) as server, connected(server) as connection:
        headers = "host: localhost\r\ncontent-type: application/grpc-web\r\ncontent-length: 9\r\n"
        connection.sendall(f"POST {INFO} HTTP/1.1\r\n{headers}\r\n\0\0".encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert b"grpc-status: 4\r\ngrpc-message: the request did not arrive within 0.4 s" in answer.read()
        assert connection.recv(1) == b""
        wait_until(lambda: len(server._lanes.calls) == 0)


def test_a_head_that_is_too_long_is_refused() -> None:
    with running(page="127.0.0.1:0", max_metadata_bytes=4096) as server:
        assert asked(server.page_address, "/", x="y" * 3000).status == 200
        assert asked(server.page_address, "/", x="y" * 5000).status in (400, 431)
        assert asked(server.page_address, f"/?{'y' * 5000}").status in (400, 431)
        with connected(server) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nx: " + b"y" * 10_000)
            assert connection.recv(4096).startswith(b"HTTP/1.1 400")


def test_more_connections_than_there_are_places_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "MOST_CONNECTIONS", 4)
    monkeypatch.setattr(endpoint, "TOLD_SO", 2)
    with running(page="127.0.0.1:0") as server, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(connected(server))
        wait_until(lambda: open_connections(server) == 4)
        assert asked(server.page_address, "/").status == 503
        wait_until(lambda: open_connections(server) == 4)
        for _ in range(2):
            stack.enter_context(connected(server))
        wait_until(lambda: open_connections(server) == 6)
        with connected(server) as beyond:
            assert beyond.recv(1) == b""
        stack.close()
        wait_until(lambda: open_connections(server) == 0)
        assert asked(server.page_address, "/").status == 200


def test_more_calls_than_there_are_places_for() -> None:
    """They are told so, as anywhere else."""
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0", max_streams_per_connection=1) as server, ExitStack() as stack:
        stack.callback(held(server).close)
        assert watcher.holding.wait(SOON)
        answer = web_call(server.page_address, "ServerInfo", b"")
        assert answer.trailers["grpc-status"] == "8"
        assert "1 calls of pages are under way" in answer.trailers["grpc-message"]
        watcher.release.set()


def held(server: Server) -> http.client.HTTPConnection:
    """A call whose answer has begun."""
    run_id = service_pb2.RunResponse.FromString(web_call(server.page_address, "Run", RUN).messages[0]).run_id
    options = tensor_pb2.TensorOptions(max_chunk_bytes=1024)
    request = requests.of_method("logits", run_id, options=options).SerializeToString()
    connection = http.client.HTTPConnection(*place(server), timeout=SOON)
    connection.request("POST", f"/{SERVICE}/Logits", frame(request), {"content-type": "application/grpc-web"})
    return connection


def test_calls_that_are_under_way_end_before_the_server_does() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0", drain_s=SOON) as server:
        connection = held(server)
        assert watcher.holding.wait(SOON)
        left: list[list[str]] = []
        stopping = threading.Thread(target=lambda: left.append(server.stop()))
        stopping.start()
        wait_until(lambda: web_call(server.page_address, "ServerInfo", b"").trailers["grpc-status"] == "14")
        watcher.release.set()
        assert connection.getresponse().read().endswith(b"grpc-status: 0\r\n")
        stopping.join(SOON)
        assert left == [[]]
        with pytest.raises(ConnectionRefusedError):
            asked(server.page_address, "/")
        connection.close()


def test_calls_that_do_not_end_are_ended_when_the_server_is() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0", drain_s=0.2) as server:
        connection = held(server)
        assert watcher.holding.wait(SOON)
        server.stop()
        body = connection.getresponse().read()
        assert b"grpc-status: " in body[-300:]
        connection.close()


def test_an_idle_connection_holds_no_server_up() -> None:
    with running(page="127.0.0.1:0") as server, connected(server) as connection:
        connection.sendall(b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
        assert server.stop() == []
        assert connection.recv(1) == b""


def test_an_address_is_taken_once() -> None:
    with running(page="127.0.0.1:0") as server:
        page = server.page_address.removeprefix("http://")
        other = Server(ServerConfig(listen="127.0.0.1:0", page=page))
        with pytest.raises(InvalidRequestError, match=f"cannot serve the page on {page}: is it in use"):
            other.start()
        other.stop()


@pytest.mark.parametrize("page", ["8080", "localhost", "127.0.0.1:65536", "unix:/tmp/x", ""])
def test_an_address_has_a_form(page: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"page is .*: write HOST:PORT"):
        Server(ServerConfig(page=page))


@pytest.mark.parametrize("page", ["[::1]:0", "localhost:0"])
def test_a_page_is_at_every_address_of_its_name(page: str) -> None:
    with running(page=page) as server:
        port = place(server)[1]
        assert server.page_address == f"http://{page.removesuffix(':0')}:{port}"
        hosts = ["[::1]"] if page.startswith("[") else ["127.0.0.1", "[::1]"]
        for host in hosts:
            assert asked(f"http://{host}:{port}", "/").status == 200


def test_requests_on_one_connection_are_answered_in_turn() -> None:
    head = b"HEAD / HTTP/1.1\r\nhost: localhost\r\n\r\n"
    other = b"GET /missing HTTP/1.1\r\nhost: localhost\r\n\r\n"
    with running(page="127.0.0.1:0") as server, connected(server) as connection:
        connection.sendall(head + head + other + head)
        came = b""
        while piece := connection.recv(65_536):
            came += piece
    assert [line.split()[1] for line in came.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")] == [
        b"200",
        b"200",
        b"404",
    ]


@pytest.mark.parametrize(
    "said",
    [b"\x16\x03\x01\x02\x00\x01\x00", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET\r\n\r\n", b"\0" * 100 + b"\r\n\r\n"],
)
def test_what_is_no_http_is_told_so(said: bytes) -> None:
    with running(page="127.0.0.1:0", request_arrival_s=1.0) as server, connected(server) as connection:
        connection.sendall(said)
        answer = connection.recv(4096)
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4")
        assert asked(server.page_address, "/").status == 200
        assert server.stop() == []
