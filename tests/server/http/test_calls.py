"""Calls of a page: the same bytes and errors as gRPC's own, and ended as soon as nobody waits for them."""

from __future__ import annotations

import base64
import http.client
from collections.abc import Iterator
from urllib.parse import unquote

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from support.network.grpc_web import WebAnswer, asked, frame, posted, web_call
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client.transport.shared_memory import Ring
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import ADMIN_SERVICE, METHODS, SERVICE
from transparent_llm.wire.rpcs import RPCS
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
INFO = f"/{SERVICE}/ServerInfo"
UNIMPLEMENTED, INVALID, EXHAUSTED, LATE = "12", "3", "8", "4"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running(page="127.0.0.1:0", max_request_bytes=10_000) as server:
        yield server


def run_id_by(page: str) -> str:
    ran = web_call(page, "Run", requests.run(RunInput.of_tokens(ROWS), "").SerializeToString())
    assert ran.trailers["grpc-status"] == "0"
    run_id: str = service_pb2.RunResponse.FromString(ran.messages[0]).run_id
    return run_id


def ended_with(answer: WebAnswer) -> tuple[str, str]:
    """Its status, and the words."""
    return answer.trailers["grpc-status"], unquote(answer.trailers.get("grpc-message", ""))


def test_streams_bring_the_bytes_that_grpc_brings(server: Server) -> None:
    run_id = run_id_by(server.page_address)
    options = tensor_pb2.TensorOptions(max_chunk_bytes=4096)
    read = 0
    with grpc.insecure_channel(server.address) as channel:
        for name, method in METHODS.items():
            if not (method.of_class and method.of_run and method.dims) or method.parameters:
                continue
            arguments = [0] * len(method.arguments)
            request = requests.of_method(name, run_id, *arguments, options=options).SerializeToString()
            expected = list(channel.unary_stream(f"/{SERVICE}/{method.rpc}")(request, timeout=SOON))
            answer = web_call(server.page_address, method.rpc, request)
            assert ended_with(answer) == ("0", "")
            assert answer.messages == expected
            read += len(expected)
    assert read > 30


def test_a_single_answer_is_the_same(server: Server) -> None:
    request = service_pb2.TokensToStringsRequest(token_ids=[1, 2, 3]).SerializeToString()
    with grpc.insecure_channel(server.address) as channel:
        expected = channel.unary_unary(f"/{SERVICE}/TokensToStrings")(request, timeout=SOON)
    for kind in ("application/grpc-web", "application/grpc-web+proto", "application/grpc-web+proto; charset=x"):
        answer = web_call(server.page_address, "TokensToStrings", request, content_type=kind)
        assert answer.messages == [expected]
        assert answer.headers["content-type"] == "application/grpc-web+proto"
        assert "access-control-allow-origin" not in answer.headers


def test_all_methods_of_the_service_can_be_called(server: Server) -> None:
    """What is wrong with an empty request differs; that there is no such method is said of none."""
    answers = {rpc.name: web_call(server.page_address, rpc.name, b"") for rpc in RPCS}
    assert {name for name, answer in answers.items() if "there is no such method" in ended_with(answer)[1]} == set()
    assert ended_with(answers["Logits"])[0] == "5"


def test_errors_keep_their_details(server: Server) -> None:
    answer = web_call(server.page_address, "Logits", requests.of_method("logits", "gone 100 % ü").SerializeToString())
    code, words = ended_with(answer)
    assert code == "5"
    assert "'gone 100 % ü' was not found" in words
    rich = status_pb2.Status.FromString(base64.b64decode(answer.trailers["grpc-status-details-bin"]))
    info = error_details_pb2.ErrorInfo()
    rich.details[0].Unpack(info)
    assert (rich.code, rich.message, info.reason) == (5, words, "RUN_NOT_FOUND")


def test_health_is_told(server: Server) -> None:
    answer = posted(server.page_address, "/grpc.health.v1.Health/Check", frame(b""))
    assert (answer.messages, ended_with(answer)) == ([b"\x08\x01"], ("0", ""))


@pytest.mark.parametrize(
    "path",
    [
        f"/{SERVICE}/Nothing",
        f"/{ADMIN_SERVICE}/ListRuns",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        f"/{SERVICE}/Run/",
        "/a%2fb/c",
        "//",
    ],
)
def test_other_methods_are_not_there(server: Server, path: str) -> None:
    code, words = ended_with(posted(server.page_address, path, frame(b"")))
    assert code == UNIMPLEMENTED
    assert path in words


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        (b"", INVALID, "ended after 0 bytes"),
        (b"\0\0\0", INVALID, "ended after 3 bytes"),
        (frame(b"abc")[:-1], INVALID, "ended after 7 bytes, before the 8 bytes of its frame had come"),
        (frame(b"abc") + b"x", INVALID, "something follows a message of 3 bytes"),
        (frame(b"") + frame(b""), INVALID, "something follows a message of 0 bytes"),
        (frame(b"abc", flags=1), INVALID, "compressed"),
        (frame(b"abc", flags=0x80), INVALID, "flags 0x80"),
        (b"\0\0\0\x27\x11", EXHAUSTED, "larger than max (10001 vs. 10000)"),
        (b"\0\xff\xff\xff\xff", EXHAUSTED, "larger than max (4294967295 vs. 10000)"),
    ],
)
def test_a_body_is_one_whole_message(server: Server, body: bytes, code: str, words: str) -> None:
    said = ended_with(posted(server.page_address, INFO, body))
    assert said[0] == code
    assert words in said[1]


def test_a_message_that_is_too_large_is_refused_before_it_comes() -> None:
    """What comes of it all the same is not kept, and not listened to for long."""
    with running(page="127.0.0.1:0", request_arrival_s=1.0) as server:
        connection = http.client.HTTPConnection(server.page_address.removeprefix("http://"), timeout=SOON)
        connection.putrequest("POST", INFO)
        connection.putheader("content-type", "application/grpc-web+proto")
        connection.putheader("content-length", str(2**40))
        connection.endheaders(b"\0\x40\x00\x00\x00")
        assert b"grpc-status: 8" in connection.getresponse().read()
        with pytest.raises(ConnectionError):
            send_for_ever(connection)
        connection.close()


def test_a_refused_call_leaves_its_connection_to_the_next(server: Server) -> None:
    connection = http.client.HTTPConnection(server.page_address.removeprefix("http://"), timeout=SOON)
    for path, status in ((f"/{SERVICE}/Nothing", "12"), (INFO, "0")) * 3:
        connection.request("POST", path, frame(b""), {"content-type": "application/grpc-web"})
        assert f"grpc-status: {status}\r".encode() in connection.getresponse().read()
    connection.close()


@pytest.mark.parametrize(
    "kind", ["", "application/json", "text/plain", "application/grpc-web-text", "application/grpc"]
)
def test_other_types_are_no_calls(server: Server, kind: str) -> None:
    answer = asked(server.page_address, INFO, "POST", frame(b""), content_type=kind)
    assert answer.status == 415
    assert b"application/grpc-web+proto" in answer.body


def test_a_call_is_posted(server: Server) -> None:
    for method in ("GET", "OPTIONS", "PUT", "DELETE"):
        answer = asked(server.page_address, INFO, method)
        assert (answer.status, answer.headers["allow"]) == (405, "POST")
        assert not any(name.startswith("access-control") for name in answer.headers)


@pytest.mark.parametrize("timeout", ["1", "m", "-1S", "123456789S", "1.5S", "1s"])
def test_a_timeout_has_a_form(server: Server, timeout: str) -> None:
    code, words = ended_with(posted(server.page_address, INFO, frame(b""), grpc_timeout=timeout))
    assert code == INVALID
    assert repr(timeout) in words


def test_the_longest_timeout_is_one(server: Server) -> None:
    assert ended_with(posted(server.page_address, INFO, frame(b""), grpc_timeout="99999999H")) == ("0", "")


def test_a_deadline_ends_a_call() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0") as server:
        request = requests.of_method(
            "logits", run_id_by(server.page_address), options=tensor_pb2.TensorOptions(max_chunk_bytes=1024)
        )
        answer = web_call(server.page_address, "Logits", request.SerializeToString(), grpc_timeout="300m")
        assert ended_with(answer)[0] == LATE
        assert len(answer.messages) == 1
        assert watcher.cancelled.wait(SOON)


def test_a_browser_that_leaves_ends_its_call() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, page="127.0.0.1:0", stall_s=0, drain_s=5.0) as server:
        request = requests.of_method(
            "logits", run_id_by(server.page_address), options=tensor_pb2.TensorOptions(max_chunk_bytes=1024)
        )
        connection = http.client.HTTPConnection(server.page_address.removeprefix("http://"), timeout=SOON)
        body = frame(request.SerializeToString())
        connection.request("POST", f"/{SERVICE}/Logits", body, {"content-type": "application/grpc-web"})
        answer = connection.getresponse()
        assert answer.read(5)[:1] == b"\0"
        assert watcher.holding.wait(SOON)
        assert len(server._lanes.calls) == 1
        assert not watcher.cancelled.is_set()
        answer.close()
        connection.close()
        assert watcher.cancelled.wait(SOON)
        wait_until(lambda: not len(server._lanes.calls))


def test_what_nobody_reads_is_not_fetched_and_cancelled_in_time() -> None:
    """A call whose browser takes nothing waits, and neither it nor its connection waits for ever."""
    rows = [list(range(1, 61))] * 256
    watcher = Watcher()
    with running(watcher, page="127.0.0.1:0", stall_s=1.0, sweep_s=0.1) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.run_tokens(rows)
            request = requests.of_method(
                "logits", llm.run_id(), options=tensor_pb2.TensorOptions(max_chunk_bytes=16_384)
            )
        connection = http.client.HTTPConnection(server.page_address.removeprefix("http://"), timeout=SOON)
        body = frame(request.SerializeToString())
        connection.request("POST", f"/{SERVICE}/Logits", body, {"content-type": "application/grpc-web"})
        wait_until(lambda: len(server._lanes.calls))
        wait_until(lambda: not len(server._lanes.calls))
        assert watcher.messages < 1800  # of about 1900 that the answer has
        assert server._page is not None
        page = server._page
        wait_until(lambda: not page._state.connections)
        connection.close()


def test_a_browser_gets_no_shared_memory() -> None:
    """Whatever it offers: a client of the same host that offers this gets the bytes through it."""
    ring = Ring()
    with running(page="127.0.0.1:0") as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens([list(range(1, 61))] * 256)
        request = requests.of_method("logits", llm.run_id())
        ring.begin()
        requests.offer(request, ring.offer)
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_stream(f"/{SERVICE}/Logits")(request.SerializeToString(), timeout=SOON)
            first_by_grpc = next(call)
            call.cancel()
        ring.begin()
        requests.offer(request, ring.offer)
        by_page = web_call(server.page_address, "Logits", request.SerializeToString()).messages
    ring.close()
    assert shares(first_by_grpc)
    assert not any(shares(message) for message in by_page)
    assert sum(map(len, by_page)) > 256 * 60 * 500 * 4


def shares(message: bytes) -> bool:
    return bool(tensor_pb2.TensorChunk.FromString(message).HasField("shared"))


def test_a_large_message_is_told_why_it_is_refused() -> None:
    """Also where the server says so before it has read it."""
    server = Server(ServerConfig(listen="127.0.0.1:0", page="127.0.0.1:0"))
    server.start()
    try:
        for size in (0, 100_000, 4_000_000):
            answer = web_call(server.page_address, "Run", b"\0" * size)
            assert answer.trailers["grpc-status"] == "14"
            assert "grpc-status-details-bin" in answer.trailers
    finally:
        server.stop()


def send_for_ever(connection: http.client.HTTPConnection) -> None:
    while True:
        connection.sock.sendall(bytes(2**20))
