"""The end of a server in a process: within its limits, whatever goes on, and whoever waits is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InvalidRequestError, TransparentLlmError
from transparent_llm.run_input import RunInput
from transparent_llm.testing import serve_in_process
from transparent_llm.wire import requests
from transparent_llm.wire._gen.service_pb2 import LogitsRequest
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.registry.slot import ModelSource


@pytest.fixture
def go_on() -> Iterator[threading.Event]:
    """Set at the end, so that no thread stays behind."""
    event = threading.Event()
    yield event
    event.set()


def serving(drain_s: float = 0.2) -> Server:
    server = Server(ServerConfig(listen="127.0.0.1:0", probe_listen="127.0.0.1:0", drain_s=drain_s))
    server.start()
    server.serve(tiny(), "tiny")
    server.ready()
    return server


def keep_busy(server: Server, go_on: threading.Event) -> None:
    """One piece of work of the model's that nothing stops."""
    begun = threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait()

    server._engine.submit(work)
    assert begun.wait(SOON)


def soon(stop: Callable[[], object]) -> list[str]:
    """What it returns, which must be soon."""
    results: list[object] = []
    stopping = threading.Thread(target=lambda: results.append(stop()), daemon=True)
    stopping.start()
    stopping.join(SOON)
    assert not stopping.is_alive()
    left = results[0]
    return left if isinstance(left, list) else []


def test_a_server_that_does_nothing_leaves_nothing_over() -> None:
    assert soon(serving().stop) == []


def test_stopping_twice_and_before_it_was_started_is_no_error() -> None:
    server = Server(ServerConfig(listen="127.0.0.1:0"))
    assert soon(server.stop) == []
    assert soon(server.stop) == []


def test_whoever_waits_for_the_model_is_told_that_the_server_drains(go_on: threading.Event) -> None:
    server = serving()
    keep_busy(server, go_on)
    with grpc.insecure_channel(server.address) as channel:
        runs = [a_run(channel, rows) for rows in ([[1, 2]], [[1, 2]], [[3]])]
        wait_until(lambda: server._engine.queued_runs == 2)
        left = soon(server.stop)
        for run in runs:
            error = run.exception(SOON)
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            assert error.details() == "the server is shutting down; connect to another one"
    assert len(left) == 1
    assert left[0].startswith("the model, for ")


def a_run(channel: grpc.Channel, rows: list[list[int]]) -> Any:
    """A call that is under way."""
    request = requests.run(RunInput.of_tokens(rows), "tiny")
    return stub(channel).Run.future(request, timeout=SOON)


def test_work_that_nobody_waits_for_is_not_waited_for(go_on: threading.Event) -> None:
    server = serving(drain_s=10 * SOON)
    with grpc.insecure_channel(server.address) as channel:
        keep_busy(server, go_on)
        runs = [a_run(channel, [[number]]) for number in range(5)]
        wait_until(lambda: server._engine.queued_runs == 5)
        for run in runs:
            run.cancel()
        soon(server.stop)


def test_streams_that_say_nothing_or_are_not_read_end_with_the_drain_time() -> None:
    server = serving()
    with grpc.insecure_channel(server.address) as channel:
        silent = channel.stream_stream(f"/{SERVICE}/Run")(_never())
        with RemoteTransparentLlm(server.address) as llm:
            llm.run_tokens([list(range(1, 61))] * 512)  # more than lies in connections
            run_id = llm.run_id()
        unread = stub(channel).Logits(LogitsRequest(run_id=run_id))
        next(unread)
        assert soon(server.stop) == []
        for call in (silent, unread):
            with pytest.raises(grpc.RpcError):
                list(call)


def _never() -> Iterator[bytes]:
    threading.Event().wait(SOON)
    yield from ()


def test_a_load_that_does_not_end_is_left_alone(go_on: threading.Event) -> None:
    server, begun = serving(), threading.Event()

    def load(_: Callable[[str], None]) -> ServedModel:
        begun.set()
        go_on.wait()
        raise InvalidRequestError("too late")

    server._registry.offer(ModelSource("slow", load, on_demand=True))
    with RemoteTransparentLlm(server.address, model="slow", timeout_s=1) as llm, pytest.raises(TransparentLlmError):
        llm.model_info()
    assert begun.wait(SOON)
    assert soon(server.stop) == ["a model that is being loaded"]


def test_a_model_of_ones_own_that_never_returns_does_not_hold_its_test_up(go_on: threading.Event) -> None:
    llm = serve_in_process(tiny().copy(), timeout_s=60)
    keep_busy(llm.server, go_on)
    soon(llm.close)
