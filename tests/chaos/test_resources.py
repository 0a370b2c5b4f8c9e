"""Streams that are opened and dropped leave nothing behind; one that nobody reads holds nobody else up."""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path

import grpc

from support.models.tensors import assert_same_bits
from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.app import Server

ROWS = [list(range(1, 61)) for _ in range(64)]
WARM_UP = 50
GROWTH_BYTES = 48 * 2**20
"""Of resident memory: an allocator's slack, far below the streams' 1 MB each that would stay if they were kept."""


def used() -> tuple[int, int]:
    """Threads and file descriptors of this process, which has client and server in it."""
    gc.collect()
    return threading.active_count(), len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def drop(server: Server, run_id: str, number: int) -> None:
    """Open a stream and leave it: unread, after its first message, or by closing the channel."""
    with grpc.insecure_channel(server.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
        request = service_pb2.ResidualOutRequest(run_id=run_id, layer=1)
        request.options.max_chunk_bytes = 1000
        stream = stub(channel).ResidualOut(request, timeout=60)
        if number % 3:
            next(stream)
        if number % 3 == 1:
            stream.cancel()


def test_dropped_streams_leave_nothing(is_long: bool) -> None:
    count = 1000 if is_long else 200
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=60, shared_memory=False) as llm:
        llm.run_tokens(ROWS)
        run_id = llm.run_id()
        for number in range(WARM_UP):
            drop(server, run_id, number)
        wait_until(lambda: not len(server._lanes.calls))
        threads, files = used()
        before = resident_bytes()
        for number in range(count):
            drop(server, run_id, number)
        wait_until(lambda: not len(server._lanes.calls))
        wait_until(lambda: used()[0] <= threads + server._config.spare_threads)  # the pool may not have been full yet
        wait_until(lambda: used()[1] <= files)
        grown = resident_bytes() - before
        print(
            f"\n{count} streams: threads {threads} -> {used()[0]}, files {files} -> {used()[1]}, memory {grown:+} bytes"
        )
        assert grown < GROWTH_BYTES
        local = tiny().copy()
        local.run_tokens(ROWS)
        assert_same_bits(llm.residual_out(1), local.residual_out(1))


def test_a_reader_that_stops_holds_nobody_up() -> None:
    with running(stall_s=0.0) as server, RemoteTransparentLlm(server.address, timeout_s=60) as llm:
        llm.run_tokens(ROWS)
        with grpc.insecure_channel(server.address) as channel:
            request = service_pb2.LogitsRequest(run_id=llm.run_id())
            stalled = [stub(channel).Logits(request, timeout=60) for _ in range(8)]
            for stream in stalled:
                next(stream)
            other = llm.copy()
            other.run_tokens(ROWS[:2])
            assert other.logits().shape[0] == 2
            assert all(stream.is_active() for stream in stalled)
            for stream in stalled:
                stream.cancel()
