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


class Http(h11.Connection):
    """HTTP/1.1 as this port takes it: the body of a request has a length, as browsers give it.

    One in chunks takes far longer to be read than to be sent, and of its length two readers may think differently.
    """

    why_not = ""
    """Why a request was not taken, where that is told."""

    def next_event(self) -> h11.Event | type[h11.NEED_DATA] | type[h11.PAUSED]:
        """What has come next.

        Raises:
            RemoteProtocolError: it is not taken.
        """
        event = super().next_event()
        if isinstance(event, h11.Request) and any(name == b"transfer-encoding" for name, _ in event.headers):
            self.why_not = "a body comes whole here, with its content-length, and not with a transfer-encoding"
            raise h11.RemoteProtocolError(self.why_not)
        return event


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
        self.conn: Http = Http(h11.SERVER, config.h11_max_incomplete_event_size or 0)
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

    def send_400_response(self, msg: str) -> None:
        """Say that what came is not taken; where that cannot be said any more, it is the end."""
        try:
            super().send_400_response(self.conn.why_not or msg)
        except h11.LocalProtocolError:  # an answer has begun, or is to have no body
            self.abort()

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
        is_silent = self._awaits_request() and 0 < self._waits.arrival_s < now - self._ready_at
        return is_silent or 0 < self._waits.stall_s < now - self._taken_at

    def _awaits_request(self) -> bool:
        """Whether only its client can go on: with a head, or with a body that nobody wants, as it is answered already.

        Who sends a request behind one that is not answered may be gone, and would be thought to wait: nothing more is
        read until then.
        """
        theirs, ours = self.conn.their_state, self.conn.our_state
        is_behind = theirs is h11.DONE and self.flow.read_paused
        return (theirs is h11.IDLE and ours is h11.IDLE) or ours is h11.DONE or is_behind

    def abort(self) -> None:
        """End it without sending what is left."""
        self.transport.abort()


def _certificate_of(transport: asyncio.BaseTransport) -> bytes | None:
    """That TLS has verified of the client, in PEM."""
    channel = transport.get_extra_info("ssl_object")
    der = channel.getpeercert(binary_form=True) if channel is not None else None
    return ssl.DER_cert_to_PEM_cert(der).encode() if der else None
