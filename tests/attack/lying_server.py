"""A server on loopback that passes calls on to an honest one and answers what a test makes of the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc

from fuzz.rpcs import RPCS
from transparent_llm.wire import status

Messages = Sequence[bytes]
Lie = Callable[[str, Messages], Messages]
"""Is given the name of an RPC and the messages of the answer; what it returns is sent. It can raise `Fails`."""


class Fails(Exception):
    """The call ends with this status, and with these bytes as its details."""

    def __init__(self, code: grpc.StatusCode, details: bytes | None = None, words: str = "because") -> None:
        super().__init__(words)
        self.code, self.details, self.words = code, details, words


class LyingServer(grpc.GenericRpcHandler):
    """Honest until `lie` is set."""

    def __init__(self, honest: grpc.Channel) -> None:
        self._honest = honest
        self.lie: Lie = lambda _, messages: messages
        self.address = ""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        path = str(details.method)  # type: ignore[attr-defined]
        streams = RPCS[path.strip("/").replace("/", ".")].server_streaming
        make = grpc.unary_stream_rpc_method_handler if streams else grpc.unary_unary_rpc_method_handler

        def stream(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            return iter(self._answer(path, request, context))

        def once(request: bytes, context: grpc.ServicerContext) -> bytes:
            return next(stream(request, context))

        return make(stream if streams else once)

    def _answer(self, path: str, request: bytes, context: grpc.ServicerContext) -> Messages:
        try:
            honest = list(self._honest.unary_stream(path)(request, timeout=30))
        except grpc.RpcError as error:
            context.abort(error.code(), error.details() or "")
        try:
            return self.lie(path.rpartition("/")[2], honest)
        except Fails as failure:
            if failure.details is not None:
                context.set_trailing_metadata(((status.DETAILS_KEY, failure.details),))
            context.abort(failure.code, failure.words)


@contextmanager
def lying(honest_address: str) -> Iterator[LyingServer]:
    with grpc.insecure_channel(honest_address, [("grpc.max_receive_message_length", -1)]) as channel:
        liar = LyingServer(channel)
        options: list[tuple[str, Any]] = [("grpc.max_send_message_length", -1)]
        server = grpc.server(ThreadPoolExecutor(8), [liar], options=options)
        liar.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        server.start()
        try:
            yield liar
        finally:
            server.stop(None).wait()
