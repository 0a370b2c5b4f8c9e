"""The choke point: every call of the client goes through `unary` or `tensor`.

Here are deadline, token, routing key, progress, cancellation, resumption of a cut stream, and the one place
where gRPC's errors become ours.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import Any

import grpc
import torch
from tqdm import tqdm

from transparent_llm._channel import LazyChannel, closed_error
from transparent_llm._interrupt import Interruptible
from transparent_llm._rings import Rings
from transparent_llm.config import ClientConfig
from transparent_llm.errors import CancelledError, DeadlineError, InternalError, TransparentLlmError, UnavailableError
from transparent_llm.progress import progress_bar
from transparent_llm.wire import health, status
from transparent_llm.wire.assembler import Assembler, StreamError
from transparent_llm.wire.methods import RUN_KEY_HEADER

log = logging.getLogger("transparent_llm")
_TRIES = 5
"""Of a call that is lost with its connection again and again."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class Calls:
    """Calls to one server. Shared by a client and its copies; safe for many threads."""

    def __init__(self, config: ClientConfig) -> None:
        self.config = config
        self.channel = LazyChannel(config)
        self._has_answered = False
        self._rings = Rings(enabled=config.shared_memory and config.is_local)

    def unary(self, rpc: str, request: Any, run_key: str = "") -> Any:
        """Send one message, get one."""
        return self._unary(getattr(self.channel.stub(), rpc), request, run_key)

    def is_serving(self) -> bool:
        """Ask the standard health service."""
        check = self.channel.get().unary_unary(
            health.CHECK,
            request_serializer=health.HealthCheckRequest.SerializeToString,
            response_deserializer=health.HealthCheckResponse.FromString,
        )
        response = self._unary(check, health.HealthCheckRequest(service=""), "")
        return bool(response.status == health.SERVING)

    def _unary(self, method: Any, request: Any, run_key: str) -> Any:
        """Again, if the connection was lost on the way: equal requests have equal effects."""
        deadline = time.monotonic() + self.config.timeout_s
        for _ in range(_TRIES - 1):
            try:
                return self._unary_once(method, request, run_key, deadline)
            except UnavailableError as error:
                if error.reason != UnavailableError.default_reason or time.monotonic() >= deadline:
                    raise
            log.debug("the connection was lost during a call, asking again")
        return self._unary_once(method, request, run_key, deadline)

    def _unary_once(self, method: Any, request: Any, run_key: str, deadline: float) -> Any:
        with Interruptible() as interruptible:
            call = _begun(method.future, request, deadline - time.monotonic(), self._metadata(run_key))
            interruptible.cancels(call)
            try:
                response = call.result()
                self._has_answered = True
                return response
            except grpc.RpcError as error:
                raise status.from_rpc_error(error, self.config.target) from None

    def tensor(self, rpc: str, request: Any, run_key: str = "") -> torch.Tensor:
        """Receive a stream of one tensor."""
        named = self.tensors(rpc, request, run_key)
        if len(named) != 1:
            raise InternalError(f"{self.config.target} broke the protocol in {rpc}: {len(named)} tensors for one")
        return named[0][1]

    def tensors(
        self, rpc: str, request: Any, run_key: str = "", interruptible: Interruptible | None = None
    ) -> list[tuple[str, torch.Tensor]]:
        """Receive a stream's tensors with their names; a cut stream is taken up where it broke off."""
        interruptible = interruptible or Interruptible()
        deadline = time.monotonic() + self.config.timeout_s
        assembler, cuts = Assembler(self.config.max_bytes), _Cuts(self.config, was_reached=self._has_answered)
        bar: tqdm | None = None  # type: ignore[type-arg]
        try:
            while True:
                before, ring, ended_well = assembler.received, self._rings.offer(request.options), False
                take_shared = ring.take if ring is not None else None
                try:
                    with interruptible:
                        for message in self._messages(rpc, request, run_key, deadline, interruptible):
                            assembler.add(message, take_shared)
                            if bar is None and not assembler.complete:
                                bar = progress_bar(rpc, assembler.total_bytes, self.config.progress)
                            if bar is not None:
                                bar.total = assembler.total_bytes
                                bar.update(assembler.received - bar.n)
                    ended_well = True
                    return assembler.tensors()
                except grpc.RpcError as error:
                    failure = status.from_rpc_error(error, self.config.target)
                except StreamError as error:
                    raise InternalError(f"{self.config.target} broke the protocol in {rpc}: {error}") from None
                finally:
                    self._rings.take_back(ring, ended_well=ended_well)
                by_us = interruptible.is_cancelled or self.channel.is_closed
                cuts.wait_out(failure, assembler, deadline, progress=assembler.received > before, by_us=by_us)
                log.debug("stream cut at byte %d of %d, resuming", assembler.received, assembler.total_bytes)
                assembler.resume()
                request.options.resume_offset, request.options.etag = assembler.received, assembler.etag
        finally:
            if bar is not None:
                bar.close()

    def _messages(
        self, rpc: str, request: Any, run_key: str, deadline: float, interruptible: Interruptible
    ) -> Iterator[bytes]:
        """The messages of a call, which is cancelled when nobody takes them any more."""
        remaining = deadline - time.monotonic()
        call = _begun(getattr(self.channel.stub(), rpc), request, remaining, self._metadata(run_key))
        interruptible.cancels(call)
        try:
            yield from call
        finally:
            call.cancel()

    def _metadata(self, run_key: str) -> list[tuple[str, str]]:
        metadata = [(RUN_KEY_HEADER, run_key)] if run_key else []
        if self.config.token is not None:
            metadata.append(("authorization", f"Bearer {self.config.token}"))
        return metadata


class _Cuts:
    """How often, and how long already, a stream had to be taken up again without any progress."""

    def __init__(self, config: ClientConfig, *, was_reached: bool) -> None:
        self._config = config
        self._was_reached = was_reached
        self._in_a_row = 0
        self._since: float | None = None
        self._lost = False

    def wait_out(
        self, failure: TransparentLlmError, assembler: Assembler, deadline: float, *, progress: bool, by_us: bool
    ) -> None:
        """Wait a little after a cut; raise what cannot be mended, or could not within `reconnect_s`."""
        now = time.monotonic()
        if progress or self._since is None:
            self._in_a_row, self._since = 0, now
        self._in_a_row += not progress
        was_lost = failure.reason == "UNAVAILABLE" and (self._was_reached or self._in_a_row == 1)
        was_cut = (assembler.has_begun or self._lost) and isinstance(failure, UnavailableError | CancelledError)
        self._lost = self._lost or was_lost
        if by_us or not (was_cut or was_lost) or now - self._since > self._config.reconnect_s:
            raise failure from None
        pause = min(_FIRST_PAUSE_S * 2**self._in_a_row, _LONGEST_PAUSE_S) if self._in_a_row else 0.0
        if now + pause >= deadline:
            raise DeadlineError(
                f"{self._config.target} was lost at byte {assembler.received} of {assembler.total_bytes} and did not "
                f"come back within {self._config.timeout_s:g} s: {failure.message}",
                metadata={"received": str(assembler.received), "total_bytes": str(assembler.total_bytes)},
            ) from None
        time.sleep(pause)


def _begun(method: Any, request: Any, timeout_s: float, metadata: list[tuple[str, str]]) -> Any:
    """The call, begun; a channel that another thread has just closed raises a bare ValueError."""
    try:
        return method(request, timeout=timeout_s, metadata=metadata)
    except ValueError:
        raise closed_error() from None
