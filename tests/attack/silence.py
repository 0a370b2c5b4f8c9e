"""Calls that begin and say nothing more."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import grpc

from transparent_llm.wire.methods import SERVICE

CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
RUN, LOGITS, MODEL_INFO = (f"/{SERVICE}/{rpc}" for rpc in ("Run", "Logits", "ModelInfo"))


@contextmanager
def silent(
    address: str, paths: Sequence[str], metadata: Sequence[tuple[str, str]] = (), connections: int = 1
) -> Iterator[list[Any]]:
    """Calls of these paths whose request does not come before this block ends, spread over some connections."""
    over = threading.Event()

    def requests() -> Iterator[bytes]:
        over.wait()
        yield from ()

    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.insecure_channel(address, options) for _ in range(connections)]
    calls = [
        channels[number % connections].stream_stream(path)(requests(), metadata=metadata)
        for number, path in enumerate(paths)
    ]
    try:
        yield calls
    finally:
        over.set()
        for call in calls:
            call.cancel()
        for channel in channels:
            channel.close()


def ended(calls: Sequence[Any]) -> list[grpc.StatusCode]:
    """How those ended that have ended."""
    return [call.code() for call in calls if call.done()]
