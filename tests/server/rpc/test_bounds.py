"""What one caller may take: headers, messages, streams, time to begin, idle and old connections."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from support.network.gate import gate
from support.servers.certificates import Authority
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import Listener, Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm.wire.status import from_rpc_error


def test_metadata_without_bounds_is_refused_and_the_server_goes_on() -> None:
    with running() as server:
        for _ in range(10):  # between two limits chance would decide
            with RemoteTransparentLlm(server.address, token="x" * 16_500) as llm:
                with pytest.raises(errors.TooLargeError, match=f"a message was too large for {server.address}"):
                    llm.model_info()
            with RemoteTransparentLlm(server.address, token="x" * 14_000) as llm:
                assert llm.model_info().name == "tiny"
        with grpc.insecure_channel(server.address) as channel:
            many = [(f"x-{number}", "y" * 1000) for number in range(20)]
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/grpc.health.v1.Health/Check")(b"", metadata=many, timeout=SOON)
            assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SOON)


@pytest.mark.parametrize(("rpc", "allowed"), [("ResidualIn", 2**16), ("ModelInfo", 2**16), ("Fetch", 2**20)])
def test_a_request_of_more_bytes_than_its_call_can_need_is_refused_before_it_is_parsed(rpc: str, allowed: int) -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            list(channel.unary_stream(f"/{SERVICE}/{rpc}")(b"\xff" * (allowed + 1), timeout=SOON))
        refused = from_rpc_error(caught.value, server.address)
    assert str(refused) == f"a request of {allowed + 1} bytes; /{SERVICE}/{rpc} takes at most {allowed}"
    assert refused.metadata == {"needed": str(allowed + 1), "allowed": str(allowed)}


def test_a_message_without_bounds_is_refused_and_the_server_goes_on() -> None:
    with running(max_request_bytes=100_000) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(errors.TooLargeError, match=f"a message was too large for {server.address}: .*larger than"):
            llm.run(["word " * 50_000])
        llm.run(["word"])
        assert llm.batch_size() == 1


class HeldUntilCut(Listener):
    """Streams send two messages and then nothing more until their connection ends, from so many places."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self._times = times
        self.offsets: list[int] = []
        """Where each stream was asked to begin."""

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        ended = threading.Event()
        if not context.add_callback(ended.set):
            return  # it has ended already
        self.offsets.append(request.options.resume_offset)
        for count, message in enumerate(answer(request, context)):
            if count == 2 and len(set(self.offsets)) <= self._times:
                assert ended.wait(SOON)
                return
            yield message


def test_a_connection_that_grows_old_does_not_end_a_long_transfer() -> None:
    """The connection is interrupted again and again within it; each time the stream goes on where it was."""
    slow = HeldUntilCut(times=3)
    aged = {"connection_age_s": 0.2, "connection_grace_s": 0.1, "chunk_bytes": 1024}
    with running(slow, **aged) as server, RemoteTransparentLlm(server.address, progress=False) as llm:
        llm.run_tokens([list(range(1, 61))])
        local = tiny().copy()
        local.run_tokens([list(range(1, 61))])
        assert torch.equal(llm.logits(), local.logits())
    assert slow.offsets[0] == 0
    places = list(dict.fromkeys(slow.offsets))  # one from which nothing arrived in time is asked for again
    assert len(places) >= 4  # opened, and taken up again three times
    assert places == sorted(places)  # each time further on


@pytest.mark.parametrize("with_tls", [False, True], ids=["plain", "TLS"])
def test_who_connects_and_says_nothing_is_left(with_tls: bool, tmp_path: Path) -> None:
    tls = Authority(tmp_path).issue("localhost").as_server if with_tls else {}
    with running(handshake_s=0.2, **tls) as server:
        host, _, port = server.address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=SOON) as silent:
            while silent.recv(1024):  # a greeting, perhaps, and then the end
                pass


def test_a_connection_without_calls_is_closed() -> None:
    with (
        running(connection_idle_s=0.2) as server,
        gate(server.address) as way,
        grpc.insecure_channel(way.address) as channel,
    ):
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SOON)
        wait_until(lambda: not way._sockets)
        channel.unary_unary("/grpc.health.v1.Health/Check")(b"", timeout=SOON)  # and opened again


def test_one_connection_has_so_many_calls_at_a_time() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, max_streams_per_connection=2, chunk_bytes=1024) as server:
        with RemoteTransparentLlm(server.address) as llm, grpc.insecure_channel(server.address) as channel:
            llm.run_tokens([list(range(1, 61))])
            request = service_pb2.LogitsRequest(run_id=llm.run_id()).SerializeToString()
            held = [channel.unary_stream(f"/{SERVICE}/Logits")(request) for _ in range(2)]
            assert [bool(next(stream)) for stream in held] == [True, True]
            third = channel.unary_unary(f"/{SERVICE}/ModelInfo").future(b"")
            llm.server_info()  # by another connection, and after it
            assert watcher.names.count("ServerInfo") == 1
            assert "ModelInfo" not in watcher.names
            watcher.release.set()
            assert all(len(list(stream)) > 1 for stream in held)
            assert third.result(SOON)
