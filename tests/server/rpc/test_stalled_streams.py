"""A stream that its client does not read is cancelled; one that moves, however slowly, is not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import grpc
import pytest

from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.wire import requests
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm_server.app import Server

ROWS = 256


def long_stream(llm: RemoteTransparentLlm) -> Iterator[bytes]:
    """30 MB, many more messages than a connection takes while nobody reads."""
    llm.run_tokens([list(range(1, 61))] * ROWS)
    options = tensor_pb2.TensorOptions(max_chunk_bytes=16_384)
    request = requests.of_method("logits", llm.run_id(), options=options)
    return llm._calls._messages("Logits", request, "", time.monotonic() + SOON, Interruptible())


def watched(server: Server) -> int:
    """Streams that hold a thread."""
    return len(server._lanes.calls)


def test_a_stream_that_nobody_reads_is_cancelled_while_others_are_served() -> None:
    with running(stall_s=60, sweep_s=0.1) as server, RemoteTransparentLlm(server.address) as llm:
        stream = long_stream(llm)
        next(stream)
        assert llm.copy().residual_in(0).shape[0] == ROWS
        assert watched(server)
        server._lanes.calls.bounds = replace(
            server._lanes.calls.bounds, stall_s=0.1
        )  # the other read is done, however long it took
        wait_until(lambda: not watched(server))
        with pytest.raises(grpc.RpcError) as cancelled:
            list(stream)
        assert cancelled.value.code() is grpc.StatusCode.CANCELLED


def test_without_a_limit_it_waits() -> None:
    with running(stall_s=0) as server, RemoteTransparentLlm(server.address) as llm:
        stream = long_stream(llm)
        received = [next(stream)]
        assert not server._lanes.calls.cancel_overdue().total()
        received.extend(stream)
        assert sum(map(len, received)) > ROWS * 60 * 500 * 4
