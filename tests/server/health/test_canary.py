"""Whether a server serves is found out by a call of its own, and told to whoever asks for health."""

from __future__ import annotations

import logging
import os
import threading
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from support.servers.engines import SOON
from support.servers.polling import wait_for, wait_until
from support.servers.servers import Continuation, running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm_server.app import SERVING_LOST, Server
from transparent_llm_server.rpc.concurrency.threads import ReadyThreads

SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING


class Stuck(grpc.ServerInterceptor):
    """Holds the thread on which gRPC serves, once a call of this name comes."""

    def __init__(self) -> None:
        self.release = threading.Event()

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        if str(details.method).endswith("ServerInfo"):
            self.release.wait(SOON)
        return continuation(details)


def health(server: Server) -> int:
    with grpc.insecure_channel(server.probe_address) as channel:
        return int(health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=SOON).status)


def test_a_server_whose_thread_is_stuck_says_so_and_says_when_it_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    stuck = Stuck()
    with running(stuck, canary_s=0.5, probe_listen="127.0.0.1:0") as server:
        assert health(server) == SERVING
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
            asking = threading.Thread(target=llm.server_info)
            asking.start()
            wait_for(lambda: health(server), NOT_SERVING, "health")
            stuck.release.set()
            asking.join()
        wait_for(lambda: health(server), SERVING, "health")
    assert "the server's own call was not answered, 2 times in a row" in caplog.text


def test_a_server_that_stays_stuck_ends() -> None:
    stuck = Stuck()
    with running(stuck, canary_s=0.1) as server:
        with grpc.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/transparent_llm.v1.TransparentLlmService/ServerInfo").future(b"")
            assert server.wait_for_end() == SERVING_LOST
            stuck.release.set()
            call.cancel()


def test_nobody_hears_of_the_canary(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), running(canary_s=0.05) as server:
        folder = Path(server._canary._folder)
        assert os.stat(folder).st_mode & 0o777 == 0o700
        called = threading.Event()
        answered = server._canary._call

        def call() -> str | None:
            error = answered()
            called.set()
            return error

        server._canary._call = call  # type: ignore[method-assign]
        assert called.wait(SOON)
        assert server._canary._lost == 0
    assert not folder.exists()
    assert "Canary" not in caplog.text


def test_it_comes_in_where_a_socket_file_is_and_cannot_be_called_by_others() -> None:
    with running(canary_s=60.0) as server:
        with grpc.insecure_channel(f"unix:{server._canary._folder}/canary") as channel:
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary("/transparent_llm.Canary/guessed")(b"", timeout=SOON)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_without_a_folder_for_it_a_server_serves_unwatched(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere(**_: str) -> str:
        raise FileNotFoundError("no usable temporary directory")

    monkeypatch.setattr("tempfile.mkdtemp", nowhere)
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        assert llm.is_serving()
    assert "no socket file for the canary" in caplog.text


def test_threads_that_cannot_be_started_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    started, start = [], threading.Thread.start

    def few(thread: threading.Thread) -> None:
        if len(started) == 3:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", few)
    with pytest.raises(InvalidRequestError, match="only 3 of 8 threads named 'call' could be started"):
        ReadyThreads(8, "call")
    wait_until(lambda: not any(thread.is_alive() for thread in started))


def test_all_threads_are_there_before_the_first_call() -> None:
    before = set(threading.enumerate())
    with running(max_streams=4, spare_threads=2) as server:
        names = [thread.name.partition("_")[0] for thread in set(threading.enumerate()) - before]
        assert names.count("call") == 6
        with RemoteTransparentLlm(server.address) as llm:
            llm.run_tokens([[1, 2]])
            assert llm.logits().shape[0] == 1
