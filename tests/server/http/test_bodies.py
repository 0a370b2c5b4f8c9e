"""Bodies that nobody asked for, or that come in another way than browsers send them: they hold nothing up."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from support.network.grpc_web import asked, frame, web_call
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server

INFO = f"/{SERVICE}/ServerInfo"
RUN = requests.run(RunInput.of_tokens([[1, 2, 3, 4]]), "").SerializeToString()
MANY = 100_000


@contextmanager
def sent(server: Server, data: bytes) -> Iterator[socket.socket]:
    host, _, port = server.page_address.partition("://")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=SOON) as connection:
        connection.sendall(data)
        yield connection


def all_of(connection: socket.socket) -> bytes:
    """What comes until the other end is closed."""
    came = b""
    try:
        while piece := connection.recv(65_536):
            came += piece
    except ConnectionResetError:
        pass
    return came


def head(line: str, *headers: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", "host: localhost", *headers, "", ""]).encode()


def call(rpc: str, *headers: str) -> bytes:
    return head(f"POST /{SERVICE}/{rpc}", "content-type: application/grpc-web", *headers)


@pytest.mark.parametrize("line", ["GET /", f"POST {INFO}"])
@pytest.mark.parametrize("others", [[], ["content-length: 5"]])
def test_a_body_has_a_length(line: str, others: list[str]) -> None:
    headers = ["content-type: application/grpc-web", "transfer-encoding: chunked", *others]
    with running(page="127.0.0.1:0") as server, sent(server, head(line, *headers)) as connection:
        answer = all_of(connection)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"a body comes whole here, with its content-length" in answer


def test_a_body_of_many_pieces_is_not_read_to_its_end() -> None:
    """To find them takes a thousand times as long as to send them, and everybody else waits."""
    with running(page="127.0.0.1:0") as server:
        asked(server.page_address, "/")
        used = time.process_time()
        with sent(server, head("GET /", "transfer-encoding: chunked")) as connection:
            with suppress(OSError):
                connection.sendall(b"1\r\nx\r\n" * MANY)
            all_of(connection)
        assert time.process_time() - used < 1.0


@pytest.mark.parametrize("line", ["GET /", "HEAD /"])
def test_the_rest_of_a_request_that_is_answered_is_not_waited_for(line: str) -> None:
    with running(page="127.0.0.1:0", request_arrival_s=0.4) as server:
        with sent(server, head(line, "content-length: 1000000")) as connection:
            assert connection.recv(16).startswith(b"HTTP/1.1 200")
            connection.sendall(b"x")
            all_of(connection)


def test_nonsense_behind_an_answer_is_no_incident(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0") as server, caplog.at_level(logging.WARNING):
        with sent(server, head("HEAD /", "transfer-encoding: chunked") + b"zz\r\n") as connection:
            all_of(connection)
        with sent(server, head("GET /", "content-length: 3")) as connection:
            assert connection.recv(16).startswith(b"HTTP/1.1 200")
            connection.sendall(b"abc\0\0\r\n\r\n")
            all_of(connection)
        assert asked(server.page_address, "/").status == 200
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_who_has_sent_more_and_left_is_noticed() -> None:
    """What stands behind a call is not read before its answer, and so is not the end of the connection."""
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0", request_arrival_s=0.4) as server:
        run_id = service_pb2.RunResponse.FromString(web_call(server.page_address, "Run", RUN).messages[0]).run_id
        options = tensor_pb2.TensorOptions(max_chunk_bytes=1024)
        body = frame(requests.of_method("logits", run_id, options=options).SerializeToString())
        with sent(server, call("Logits", f"content-length: {len(body)}") + body) as connection:
            assert watcher.holding.wait(SOON)
            connection.sendall(b"GET / HTTP/1.1\r\n")
        assert watcher.cancelled.wait(SOON)
        wait_until(lambda: not len(server._lanes.calls))
