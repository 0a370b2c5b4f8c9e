"""Calls of pages: each becomes one of this server's own gRPC, which judges, counts, logs and answers it like any."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import grpc
import grpc.aio
from grpc_health.v1 import health

from transparent_llm.errors import AuthError, BusyError, DeadlineError, InvalidRequestError
from transparent_llm.wire.frames import NO_COMPRESSION
from transparent_llm.wire.methods import QUEUE_POSITION_HEADER, RUN_KEY_HEADER, SERVICE
from transparent_llm.wire.rpcs import RPCS
from transparent_llm.wire.status import DETAILS_KEY
from transparent_llm_server.config.server import MIB, ServerConfig
from transparent_llm_server.http import answer, grpc_web
from transparent_llm_server.http.grpc_web import Arriving, RefusedError, Status
from transparent_llm_server.http.request import Receive, Request, Send
from transparent_llm_server.rpc.peer import forwarded

_HEALTH = frozenset(f"/{health.SERVICE_NAME}/{name}" for name in ("Check", "Watch"))
_MOST_BYTES_OF_HEALTH = 1024
"""Of a call that needs no token: it has a name, or nothing."""

PATHS = _HEALTH | {f"/{SERVICE}/{rpc.name}" for rpc in RPCS}
"""What pages can call. Administrators have the port of gRPC."""

_PASSED_ON = ("authorization", RUN_KEY_HEADER, QUEUE_POSITION_HEADER, "traceparent", "tracestate")
"""Headers of a request that the call gets; whatever else it has stays here."""

_PASSED_BACK = frozenset({QUEUE_POSITION_HEADER})
_HEADERS = (("content-type", grpc_web.MEDIA_TYPE), ("cache-control", "no-store"), answer.NOSNIFF)

_Metadata = tuple[tuple[str, str], ...]
_Call = Any  # grpc.aio.UnaryStreamCall[bytes, bytes]: its stubs do not say what its methods return


class _LeftError(Exception):
    """Nobody waits for the answer any more."""


class Admission(Protocol):
    """Who may call, as far as that can be told before the message of a call comes."""

    def may_call(self, authorization: str | None) -> bool:
        """Whether a call with this header is worth reading."""

    def require_certificate(self, pem: bytes) -> None:
        """Raises AuthError for one that is revoked."""


class Gateway:
    """Makes the calls. All its methods belong to one event loop, that of `open`."""

    def __init__(self, config: ServerConfig, admission: Admission) -> None:
        self._most_bytes = config.max_request_bytes
        self._arrival_s = config.request_arrival_s or None
        self._most_calls, self._retry_s = config.max_streams_per_connection, config.busy_retry_s
        self._largest_answer = config.max_chunk_bytes + MIB
        self._admission = admission
        self._channel: grpc.aio.Channel | None = None
        self._under_way = 0

    def open(self, address: str) -> None:
        """Call the server at this address from now on; no connection is opened before the first call."""
        options = [
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", self._largest_answer),
            ("grpc.max_send_message_length", self._most_bytes),
            NO_COMPRESSION,
        ]
        self._channel = grpc.aio.insecure_channel(address, options)

    async def close(self) -> None:
        """End all calls."""
        if self._channel is not None:
            await self._channel.close()

    async def answer(self, request: Request, receive: Receive, send: Send) -> None:
        """Make a call, and answer it; whatever happens to it, the status says."""
        try:
            await self._made(request, receive, send)
        except RefusedError as error:
            await answer.begin(send, 200, _HEADERS)
            await answer.add(send, grpc_web.trailers_frame(error.status), more=False)

    async def _made(self, request: Request, receive: Receive, send: Send) -> None:
        if request.path not in PATHS:
            raise grpc_web.unimplemented(f"pages cannot call {request.path[:200]!r}: there is no such method for them")
        self._require_certificate(request)
        headers = request.headers
        timeout = grpc_web.timeout_of(headers["grpc-timeout"]) if "grpc-timeout" in headers else None
        metadata = _metadata_of(request)
        is_read = request.path in _HEALTH or self._admission.may_call(headers.get("authorization"))
        most_bytes = min(self._most_bytes, _MOST_BYTES_OF_HEALTH) if request.path in _HEALTH else self._most_bytes
        try:
            # refused by the server, which says and logs why
            message = await self._message(receive, most_bytes) if is_read else b""
            with self._counted():
                call = self._begun(request.path, message, timeout, metadata)
                await _answered(call, receive, send)
        except _LeftError:
            return

    def _require_certificate(self, request: Request) -> None:
        try:
            if request.certificate is not None:
                self._admission.require_certificate(request.certificate)
        except AuthError as error:
            raise grpc_web.refused(error) from None

    async def _message(self, receive: Receive, most_bytes: int) -> bytes:
        """That of a call, once it has come."""
        try:
            return await asyncio.wait_for(_arrived(Arriving(most_bytes), receive), self._arrival_s)
        except asyncio.TimeoutError:
            said = f"the request did not arrive within {self._arrival_s:g} s"
            raise grpc_web.refused(DeadlineError(said)) from None

    @contextmanager
    def _counted(self) -> Iterator[None]:
        if self._under_way >= self._most_calls:
            said = f"{self._under_way} calls of pages are under way, which is all that this server takes"
            raise grpc_web.refused(BusyError(said, retry_after_s=self._retry_s))
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1

    def _begun(self, path: str, message: bytes, timeout: float | None, metadata: _Metadata) -> _Call:
        """All are called as streams: what answers once is one of one message."""
        assert self._channel is not None, "open() comes first"
        begin: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        return begin(message, timeout=timeout, metadata=metadata)


def _metadata_of(request: Request) -> _Metadata:
    """What goes on of a request, and where it comes from.

    Raises:
        RefusedError: gRPC takes no such value.
    """
    passed_on = [(name, request.headers[name]) for name in _PASSED_ON if name in request.headers]
    for name, value in passed_on:
        if not (value.isascii() and value.isprintable()):
            raise grpc_web.refused(InvalidRequestError(f"the header {name} has other characters than printable ASCII"))
    return (*passed_on, forwarded(request.host, request.port))


async def _arrived(arriving: Arriving, receive: Receive) -> bytes:
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise _LeftError
        arriving.add(event.get("body", b""))
        if not event.get("more_body", False):
            return arriving.message()


async def _answered(call: _Call, receive: Receive, send: Send) -> None:
    """Pass on what comes, each message when there is room for it; if the browser leaves, the call ends at once."""
    leaving = asyncio.ensure_future(_left(receive))
    leaving.add_done_callback(lambda _: call.cancel())
    try:
        metadata = await call.initial_metadata()
        passed = [(str(key), str(value)) for key, value in metadata or () if key in _PASSED_BACK]
        await answer.begin(send, 200, [*_HEADERS, *passed])
        with suppress(grpc.RpcError):  # its status is told below
            while (message := await call.read()) is not grpc.aio.EOF:
                await answer.add(send, grpc_web.message_frame(message), more=True)
        await answer.add(send, grpc_web.trailers_frame(await _status_of(call)), more=False)
    except asyncio.CancelledError:
        if not leaving.done():
            raise
    finally:
        leaving.cancel()
        call.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _status_of(call: _Call) -> Status:
    code, message, metadata = await call.code(), await call.details(), await call.trailing_metadata()
    details = next((value for key, value in metadata or () if key == DETAILS_KEY), b"")
    return Status(code.value[0], message or "", details)
