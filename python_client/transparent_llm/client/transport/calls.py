"""The choke point: every call of the client goes through `unary` or `tensor`.

Here are deadline, token, routing key, progress, cancellation, resumption of a broken stream, and the one place
where gRPC's errors become ours.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import grpc
import torch

from transparent_llm.client.config import ClientConfig
from transparent_llm.client.progress import Meter
from transparent_llm.client.transport.channel import LazyChannel, closed_error
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.client.transport.shared_memory import SharedMemoryPool
from transparent_llm.client.transport.traceparent import traceparent
from transparent_llm.errors import CancelledError, DeadlineError, InternalError, TransparentLlmError, UnavailableError
from transparent_llm.wire import health, status
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import RUN_KEY_HEADER, parsed, parsed_response
from transparent_llm.wire.protocol_error import ProtocolError

log = logging.getLogger("transparent_llm")
_TRIES_UNREACHED = 5
"""Of a call to a server that has never answered, without a pause: it is not waited for."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_PASSING = ("UNAVAILABLE", "DRAINING", "LOADING", "CANCELLED")
"""Reasons of a server that goes or comes, or cancels what it has not begun: where one was reached before, it or
another one will answer."""

_Answer = TypeVar("_Answer")


class Calls:
    """Calls to one server. Shared by a client and its copies; safe for many threads."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.channel = LazyChannel(config)
        self._has_answered = False
        self._rings = SharedMemoryPool(enabled=config.shared_memory and config.is_local)

    def unary(self, rpc: str, request: Any, read: Callable[[Any], _Answer], run_key: str = "") -> _Answer:
        """Send one message, get one, and what `read` makes of it.

        Raises:
            InternalError: it is none, or `read` finds that it is no answer to this request.
        """
        data = self._unary(getattr(self.channel.stub(), rpc), request, run_key)
        try:
            return read(parsed_response(rpc, data))
        except ProtocolError as error:
            raise self._broken(rpc, error) from None

    def is_serving(self) -> bool:
        """Ask the standard health service."""
        deadline = time.monotonic() + self.config.timeout_s
        check: Any = self.channel.get().unary_unary(
            health.CHECK,
            request_serializer=health.HealthCheckRequest.SerializeToString,
        )
        data = self._unary_once(check, health.HealthCheckRequest(service=""), "", deadline)
        try:
            response: Any = parsed(health.HealthCheckResponse, data)
        except ProtocolError as error:
            raise self._broken("Check", error) from None
        return bool(response.status == health.SERVING)

    def _broken(self, rpc: str, error: ProtocolError) -> InternalError:
        return InternalError(f"{self.config.target} broke the protocol in {rpc}: {error}")

    def _unary(self, method: Any, request: Any, run_key: str) -> bytes:
        """Again, if a server that had answered was lost on the way: equal requests have equal effects.

        One that has never answered is asked a few times more, but not waited for.
        """
        deadline = time.monotonic() + self.config.timeout_s
        retries = Retries(self.config, was_reached=self._has_answered)
        while True:
            try:
                return self._unary_once(method, request, run_key, deadline)
            except (UnavailableError, DeadlineError, CancelledError) as error:
                retries.backoff(error, deadline, by_us=self.channel.is_closed)
            log.debug("the connection was lost during a call; retrying")

    def _unary_once(self, method: Any, request: Any, run_key: str, deadline: float) -> bytes:
        with Interruptible() as interruptible:
            call = _begun(method.future, request, deadline - time.monotonic(), self._metadata(run_key))
            interruptible.attach(call)
            try:
                response: bytes = call.result()
                self._has_answered = True
                return response
            except grpc.RpcError as error:
                raise self._failure(error) from None

    def tensor(self, rpc: str, request: Any, expected: Expected) -> torch.Tensor:
        """Receive a stream of one tensor."""
        ((_, tensor),) = self.tensors(rpc, request, [expected])
        return tensor

    def tensors(
        self,
        rpc: str,
        request: Any,
        expected: Sequence[Expected],
        run_key: str = "",
        interruptible: Interruptible | None = None,
    ) -> list[tuple[str, torch.Tensor]]:
        """Receive a stream's tensors with their names; a broken stream is taken up where it broke off.

        Raises:
            InternalError: what comes is not what must come for the request.
        """
        interruptible = interruptible or Interruptible()
        deadline = time.monotonic() + self.config.timeout_s
        assembler = Assembler(self.config.max_bytes, answer=Answer(expected))
        retries = Retries(self.config, was_reached=self._has_answered)
        meter = Meter(rpc, self.config.progress)
        try:
            while True:
                before, ring, ended_well = assembler.received, self._rings.offer(request.options), False
                take_shared = ring.take if ring is not None else None
                try:
                    with interruptible:
                        for message in self._messages(rpc, request, run_key, deadline, interruptible):
                            assembler.add(message, take_shared)
                            meter.show(assembler.received, assembler.total_bytes)
                    ended_well = True
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
                request.options.resume_offset, request.options.etag = assembler.received, assembler.etag
        finally:
            meter.close()

    def _failure(self, error: grpc.RpcError) -> TransparentLlmError:
        """A failed call's exception; one in which the server could not speak for itself names the proxy too."""
        route = self.channel.route
        failure = status.from_rpc_error(error, str(route), route.hint)
        if route.proxy is not None and "target" in failure.metadata:
            failure.metadata.update(target=route.target, proxy=route.shown_proxy)
        return failure

    def _messages(
        self, rpc: str, request: Any, run_key: str, deadline: float, interruptible: Interruptible
    ) -> Iterator[bytes]:
        """The messages of a call, which is cancelled when nobody takes them any more."""
        remaining = deadline - time.monotonic()
        call = _begun(getattr(self.channel.stub(), rpc), request, remaining, self._metadata(run_key))
        interruptible.attach(call)
        try:
            yield from call
        finally:
            call.cancel()

    def _metadata(self, run_key: str) -> list[tuple[str, str]]:
        metadata = [(RUN_KEY_HEADER, run_key)] if run_key else []
        if self.config.token is not None:
            metadata.append(("authorization", f"Bearer {self.config.token}"))
        return metadata + traceparent()


class Retries:
    """How often, and how long already, a call had to be made or taken up again without any progress."""

    def __init__(self, config: ClientConfig, *, was_reached: bool) -> None:
        self._config = config
        self._was_reached = was_reached
        self._in_a_row = 0
        self._since: float | None = None
        self._last = -math.inf
        self._loss: TransparentLlmError | None = None

    def backoff(
        self,
        failure: TransparentLlmError,
        deadline: float,
        stream: Assembler | None = None,
        *,
        progress: bool = False,
        by_us: bool = False,
    ) -> None:
        """Wait a little after a failure; raise what cannot be mended, or could not within `reconnect_s`."""
        now = time.monotonic()
        if _loads_a_model(failure) and not by_us:
            _wait_for_model(failure, deadline)
            return
        if progress or self._since is None:
            self._in_a_row, self._since = 0, now
        self._in_a_row += not progress
        has_begun = stream is not None and stream.has_begun
        if isinstance(failure, DeadlineError) and self._loss is not None:
            raise self._stayed_away(stream) from None
        is_unreached = not (self._was_reached or has_begun or by_us) and failure.reason == "UNAVAILABLE"
        if is_unreached and self._in_a_row < _TRIES_UNREACHED and now < deadline:
            return
        was_lost = failure.reason in _PASSING and (self._was_reached or has_begun)
        was_cut = (has_begun or self._loss is not None) and isinstance(failure, UnavailableError | CancelledError)
        if by_us or not (was_cut or was_lost) or now - self._since > self._config.reconnect_s:
            raise failure from None
        self._loss = self._loss or failure
        pause = min(_FIRST_PAUSE_S * 2**self._in_a_row, _LONGEST_PAUSE_S) if self._in_a_row else self._rest(now)
        if now + pause >= deadline:
            raise self._stayed_away(stream) from None
        time.sleep(pause)

    def _rest(self, now: float) -> float:
        """After some progress there is no pause, unless the one before broke too, only just."""
        pause = max(0.0, self._last + _FIRST_PAUSE_S - now)
        self._last = now + pause
        return pause

    def _stayed_away(self, stream: Assembler | None) -> DeadlineError:
        received, total = (stream.received, stream.total_bytes) if stream is not None else (0, 0)
        place = f" at byte {received} of {total}" if total else ""
        return DeadlineError(
            f"{self._config.target} was lost{place} and did not come back within {self._config.timeout_s:g} s: "
            f"{self._loss.message if self._loss is not None else ''}",
            metadata={"received": str(received), "total_bytes": str(total)},
        )


def _loads_a_model(failure: TransparentLlmError) -> bool:
    """Whether the call began to load the model that it is for, or found it loading; not: whether the server starts."""
    return failure.reason == "LOADING" and "model" in failure.metadata


def _wait_for_model(failure: TransparentLlmError, deadline: float) -> None:
    """As long as the server says; raise its own words if the call's time does not suffice."""
    pause = max(failure.retry_after_s or _LONGEST_PAUSE_S, _FIRST_PAUSE_S)
    if time.monotonic() + pause >= deadline:
        raise failure from None
    log.debug("waiting: %s", failure)
    time.sleep(pause)


def _begun(method: Any, request: Any, timeout_s: float, metadata: list[tuple[str, str]]) -> Any:
    """The call, begun; a channel that another thread has just closed raises a bare ValueError."""
    try:
        return method(request, timeout=timeout_s, metadata=metadata)
    except ValueError:
        raise closed_error() from None
