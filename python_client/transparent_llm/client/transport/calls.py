"""The choke point: every call of the client goes through `unary` or `tensor`.

Here are deadline, token, routing key, progress, cancellation, resumption of a broken stream, and the one place
where gRPC's errors become ours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeAlias, TypeVar

import grpc
import torch

from transparent_llm.client.config import ClientConfig
from transparent_llm.client.progress import Meter
from transparent_llm.client.transport.absence import Absence
from transparent_llm.client.transport.channel import LazyChannel, closed_error
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.client.transport.retries import Retries
from transparent_llm.client.transport.shared_memory import SharedMemoryPool
from transparent_llm.client.transport.traceparent import traceparent
from transparent_llm.errors import (
    BusyError,
    CancelledError,
    DeadlineError,
    InternalError,
    TransparentLlmError,
    UnavailableError,
)
from transparent_llm.wire import health, requests, responses, status
from transparent_llm.wire.assembler import Assembler, Came
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import QUEUE_POSITION_HEADER, RUN_KEY_HEADER
from transparent_llm.wire.protocol_error import ProtocolError
from transparent_llm.wire.requests import Request

log = logging.getLogger("transparent_llm")
_Answer = TypeVar("_Answer")
_Call = TypeVar("_Call")
Stream: TypeAlias = "grpc.UnaryStreamMultiCallable[Request, bytes]"


class Calls:
    """Calls to one server. Shared by a client and its copies; safe for many threads."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.channel = LazyChannel(config)
        self._has_answered, self._absence = False, Absence()
        self._rings = SharedMemoryPool(enabled=config.shared_memory and config.is_local)

    def unary(self, rpc: str, request: Request, read: Callable[[bytes], _Answer], run_key: str = "") -> _Answer:
        """Send one message, get one, and what `read`, a function of `wire.responses`, makes of it.

        Raises:
            InternalError: `read` finds that it is no answer to this request.
        """
        meter = Meter(rpc, None if callable(self.config.progress) else self.config.progress)
        watching = meter if rpc == "Run" and meter.is_drawn else None
        try:
            once = partial(self._unary_once, rpc, getattr(self.channel.stub(), rpc), request, run_key, watching)
            return self._read(rpc, self._unary(once, meter), read)
        finally:
            meter.close()

    def is_serving(self) -> bool:
        """Ask the standard health service, once."""
        deadline = time.monotonic() + self.config.timeout_s
        check: Stream = self.channel.get().unary_stream(
            health.CHECK, request_serializer=health.HealthCheckRequest.SerializeToString
        )
        data = self._unary_once("Check", check, requests.is_serving(), "", None, deadline)
        return self._read("Check", data, responses.is_serving)

    def _read(self, rpc: str, data: bytes, read: Callable[[bytes], _Answer]) -> _Answer:
        try:
            return read(data)
        except ProtocolError as error:
            raise self._broken(rpc, error) from None

    def _broken(self, rpc: str, error: ProtocolError) -> InternalError:
        return InternalError(f"{self.config.target} broke the protocol in {rpc}: {error}")

    def _unary(self, once: Callable[[float], bytes], meter: Meter) -> bytes:
        """Again, if a server that had answered was lost on the way or had no room: equal requests have equal effects.

        One that has never answered is asked a few times more, but not waited for.
        """
        deadline = time.monotonic() + self.config.timeout_s
        retries = Retries(self.config, self._absence, meter, was_reached=self._has_answered)
        while True:
            try:
                return once(deadline)
            except (UnavailableError, DeadlineError, CancelledError, BusyError) as error:
                retries.backoff(error, deadline, by_us=self.channel.is_closed)
            log.debug("making a call again that failed")

    def _unary_once(
        self, rpc: str, begin: Stream, request: Request, run_key: str, watching: Meter | None, deadline: float
    ) -> bytes:
        """The one message of a call; who watches a run is shown its place in the queue before that comes."""
        with Interruptible() as interruptible:
            metadata = self._metadata(run_key)
            if watching is not None:
                metadata = (*metadata, (QUEUE_POSITION_HEADER, ""))
            call = _begun(begin, request, deadline - time.monotonic(), metadata)
            interruptible.attach(call)
            if watching is not None:
                watching.follow(call)
            try:
                answers = list(islice(call, 2))
            except grpc.RpcError as error:
                raise self._failure(error) from None
            if len(answers) != 1:
                call.cancel()
                raise self._broken(rpc, ProtocolError(f"{len(answers)} answers to one request"))
            self._answered()
            return answers[0]

    def tensor(self, rpc: str, request: Request, expected: Expected) -> torch.Tensor:
        """Receive a stream of one tensor."""
        ((_, tensor),) = self.tensors(rpc, request, [expected])
        return tensor

    def tensors(
        self,
        rpc: str,
        request: Request,
        expected: Sequence[Expected],
        run_key: str = "",
        interruptible: Interruptible | None = None,
        came: Came | None = None,
    ) -> list[tuple[str, torch.Tensor]]:
        """Receive a stream's tensors with their names; a broken stream is taken up where it broke off.

        Raises:
            InternalError: what comes is not what must come for the request.
        """
        interruptible = interruptible or Interruptible()
        deadline = time.monotonic() + self.config.timeout_s
        assembler = Assembler(self.config.max_bytes, answer=Answer(expected), came=came)
        meter, sizes = Meter(rpc, self.config.progress), [value.most_bytes for value in expected]
        retries = Retries(self.config, self._absence, meter, was_reached=self._has_answered)
        try:
            while True:
                before, ring, ended_well = assembler.received, self._rings.lend(sizes), False
                take_shared = ring.take if ring is not None else None
                requests.offer(request, ring.offer if ring is not None else None)
                try:
                    with interruptible:
                        for message in self._messages(rpc, request, run_key, deadline, interruptible):
                            assembler.add(message, take_shared)
                            meter.show(assembler.received, assembler.total_bytes)
                    ended_well = True
                    self._answered()
                    return assembler.tensors()
                except grpc.RpcError as error:
                    failure = self._failure(error)
                except ProtocolError as error:
                    raise self._broken(rpc, error) from None
                finally:
                    self._rings.take_back(ring, ended_well=ended_well)
                by_us = interruptible.is_cancelled or self.channel.is_closed
                retries.backoff(failure, deadline, assembler, progress=assembler.received > before, by_us=by_us)
                log.debug("stream broken at byte %d of %d, resuming", assembler.received, assembler.total_bytes)
                assembler.resume()
                requests.resume(request, assembler.received, assembler.etag)
        finally:
            meter.close()

    def messages(
        self,
        rpc: str,
        request: Callable[[], Request],
        take: Callable[[bytes], None],
        run_key: str,
        interruptible: Interruptible,
    ) -> None:
        """Give all messages of a stream to `take`. One that breaks is asked for anew, with what `request` makes then.

        Raises:
            InternalError: `take` finds that a message is no answer.
        """
        deadline = time.monotonic() + self.config.timeout_s
        meter = Meter(rpc, None if callable(self.config.progress) else self.config.progress)
        retries = Retries(self.config, self._absence, meter, was_reached=self._has_answered)
        try:
            while True:
                has_come = False
                try:
                    with interruptible:
                        for message in self._messages(rpc, request(), run_key, deadline, interruptible):
                            take(message)
                            has_come = True
                            self._answered()
                    return
                except grpc.RpcError as error:
                    failure = self._failure(error)
                except ProtocolError as error:
                    raise self._broken(rpc, error) from None
                by_us = interruptible.is_cancelled or self.channel.is_closed
                retries.backoff(failure, deadline, progress=has_come, by_us=by_us)
                log.debug("asking for what has not come of a %s", rpc)
        finally:
            meter.close()

    def _answered(self) -> None:
        self._has_answered = True
        self._absence.end()

    def _failure(self, error: grpc.RpcError) -> TransparentLlmError:
        """A failed call's exception; one in which the server could not speak for itself names the proxy too."""
        route = self.channel.route
        failure = status.from_rpc_error(error, str(route), route.hint)
        if route.proxy is not None and "target" in failure.metadata:
            failure.metadata.update(target=route.target, proxy=route.shown_proxy)
        return failure

    def _messages(
        self, rpc: str, request: Request, run_key: str, deadline: float, interruptible: Interruptible
    ) -> Iterator[bytes]:
        """The messages of a call, which is cancelled when nobody takes them any more."""
        remaining = deadline - time.monotonic()
        begin: Stream = getattr(self.channel.stub(), rpc)
        call = _begun(begin, request, remaining, self._metadata(run_key))
        interruptible.attach(call)
        try:
            yield from call
        finally:
            call.cancel()

    def _metadata(self, run_key: str) -> tuple[tuple[str, str], ...]:
        metadata = [(RUN_KEY_HEADER, run_key)] if run_key else []
        if self.config.token is not None:
            metadata.append(("authorization", f"Bearer {self.config.token}"))
        return (*metadata, *traceparent())


def _begun(
    begin: Callable[..., _Call], request: Request, timeout_s: float, metadata: tuple[tuple[str, str], ...]
) -> _Call:
    """The call, begun; a channel that another thread has just closed raises a bare ValueError."""
    try:
        return begin(request, timeout=timeout_s, metadata=metadata)
    except ValueError:
        raise closed_error() from None
