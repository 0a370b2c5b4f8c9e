"""Which failed calls are made again, when, and for how long: the one policy of this client.

1. A server that had answered and was lost, or that is going or coming, is waited for: `reconnect_s` without any
   progress, and never beyond the call's own time. A stream goes on where it broke off. Pauses double, from 50 ms to
   1 s; after progress there is none. It is lost to all calls of a client, which wait for it once (`Absence`).
2. A server that has never answered gets five tries in a row and is not waited for: perhaps the address is wrong.
3. A model that the call itself began to load is waited for as long as the server says, within the call's time.
4. A server that is BUSY is asked again when it says, or up to as long again, so that those whom it sent away do not
   come back together; within the call's time.
5. All else is raised at once: what the server refused, what the caller cancelled.

Equal requests have equal effects, so all of them can be repeated.

Below this lies gRPC's own policy (service_config.json): each try here is up to four of gRPC's, with random pauses of at
most a second, where a call ended UNAVAILABLE before it brought anything. The two multiply, and are meant to. In rule 2
gRPC's pauses are the only ones: an address where nobody listens is given up after 3 to 4 s (20 attempts), in which a
server that just starts can begin to listen; without gRPC's the same takes 10 ms. In rule 1 they change little, as it
counts time and not attempts.
"""

from __future__ import annotations

import math
import random
import time

from transparent_llm.client.config import ClientConfig
from transparent_llm.client.progress import Meter
from transparent_llm.client.transport.absence import Absence
from transparent_llm.errors import CancelledError, DeadlineError, TransparentLlmError, UnavailableError
from transparent_llm.wire.assembler import Assembler

_TRIES_UNREACHED = 5
"""Of a call to a server that has never answered, without a pause: it is not waited for."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_BUSY = "BUSY"
_PASSING = ("UNAVAILABLE", "DRAINING", "LOADING", "CANCELLED")
"""Reasons of a server that goes or comes, or cancels what it has not begun: where one was reached before, it or
another one will answer."""


class Retries:
    """How often, and how long already, a call had to be made or taken up again without any progress."""

    def __init__(self, config: ClientConfig, absence: Absence, meter: Meter, *, was_reached: bool) -> None:
        self._config, self._absence, self._meter = config, absence, meter
        self._was_reached = was_reached
        self._in_a_row = 0
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
        if (_loads_a_model(failure) or failure.reason == _BUSY) and not by_us:
            self._wait_as_told(failure, deadline)
            return
        now = time.monotonic()
        if progress:
            self._in_a_row = 0
            self._absence.end()
        self._in_a_row += not progress
        has_begun = stream is not None and stream.has_begun
        if isinstance(failure, DeadlineError) and self._loss is not None:
            raise self._stayed_away(stream) from None
        is_unreached = not (self._was_reached or has_begun or by_us) and failure.reason == "UNAVAILABLE"
        if is_unreached and self._in_a_row < _TRIES_UNREACHED and now < deadline:
            return
        was_lost = failure.reason in _PASSING and (self._was_reached or has_begun)
        was_broken = (has_begun or self._loss is not None) and isinstance(failure, UnavailableError | CancelledError)
        if by_us or not (was_broken or was_lost):
            raise failure from None
        self._loss = self._loss or failure
        if now - self._absence.since(now) > self._config.reconnect_s:
            raise self._lost(failure) from None
        pause = min(_FIRST_PAUSE_S * 2**self._in_a_row, _LONGEST_PAUSE_S) if self._in_a_row else self._rest(now)
        if now + pause >= deadline:
            raise self._stayed_away(stream) from None
        self._meter.waits(
            f"{self._config.target} was lost ({failure.reason}); waiting up to {self._config.reconnect_s:g} s for it"
        )
        time.sleep(pause)

    def _wait_as_told(self, failure: TransparentLlmError, deadline: float) -> None:
        """As long as the server says; raise its own words if the call's time does not suffice."""
        self._absence.end()
        pause = max(failure.retry_after_s or _LONGEST_PAUSE_S, _FIRST_PAUSE_S)
        if failure.reason == _BUSY:
            pause *= random.uniform(1.0, 2.0)
        if time.monotonic() + pause >= deadline:
            raise failure from None
        self._meter.waits(failure.message)
        time.sleep(pause)

    def _rest(self, now: float) -> float:
        """After some progress there is no pause, unless the one before broke too, only just."""
        pause = max(0.0, self._last + _FIRST_PAUSE_S - now)
        self._last = now + pause
        return pause

    def _lost(self, failure: TransparentLlmError) -> TransparentLlmError:
        """What is raised when it was waited for in vain."""
        waited = f"{self._config.target} was lost and did not come back within {self._config.reconnect_s:g} s"
        return type(failure)(
            f"{waited} (reconnect_s): {failure.message}", reason=failure.reason, metadata=failure.metadata
        )

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
