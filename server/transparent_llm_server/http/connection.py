"""A connection of a browser: HTTP/1.1, and the moments since which it waits for its client."""

from __future__ import annotations

import asyncio
import ssl
import time
from dataclasses import dataclass
from typing import Any

import h11
from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from transparent_llm_server.http.request import CERTIFICATE


@dataclass(frozen=True)
class Waits:
    """How long a connection may wait for its client, in seconds. 0: for ever."""

    arrival_s: float
    """For the next head of a request, whole; and for the rest of one that was answered before all of it had come."""

    stall_s: float
    """For any of what was sent to be taken."""


class Connection(H11Protocol):
    """Uvicorn's, which itself knows no limit for these waits. Whoever has made it asks whether it `is_overdue`."""

    def __init__(self, config: Config, state: ServerState, waits: Waits) -> None:
        super().__init__(config, state, {})
        self._waits = waits
        self._ready_at = self._taken_at = time.monotonic()
        self._unsent_bytes = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It can be read from, after its TLS handshake."""
        super().connection_made(transport)  # type: ignore[arg-type]  # asyncio's own is as wide
        self.app_state: dict[str, Any] = {CERTIFICATE: _certificate_of(transport)}
        self._ready_at = time.monotonic()

    def on_response_complete(self) -> None:
        """The next request may come."""
        self._ready_at = time.monotonic()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close it now if nothing is under way, else after the answer that is."""
        try:
            super().shutdown()
        except h11.LocalProtocolError:  # what came was no HTTP
            self.abort()

    def is_overdue(self, now: float) -> bool:
        """Whether its client has sent no whole head, or taken nothing, for too long. To be asked again and again.

        What comes of a request that was answered already is thrown away: to close at once would take the answer, which
        may be on its way, from the client.
        """
        unsent = self.transport.get_write_buffer_size()
        if not unsent or unsent != self._unsent_bytes:
            self._unsent_bytes, self._taken_at = unsent, now
        states = (self.conn.our_state, self.conn.their_state)
        awaits_request = states in ((h11.IDLE, h11.IDLE), (h11.DONE, h11.SEND_BODY))
        is_late = awaits_request and 0 < self._waits.arrival_s < now - self._ready_at
        return is_late or 0 < self._waits.stall_s < now - self._taken_at

    def abort(self) -> None:
        """End it without sending what is left."""
        self.transport.abort()


def _certificate_of(transport: asyncio.BaseTransport) -> bytes | None:
    """That TLS has verified of the client, in PEM."""
    channel = transport.get_extra_info("ssl_object")
    der = channel.getpeercert(binary_form=True) if channel is not None else None
    return ssl.DER_cert_to_PEM_cert(der).encode() if der else None
