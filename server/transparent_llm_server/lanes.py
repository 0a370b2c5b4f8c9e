"""The lanes of a server's calls: those of the health service on threads of their own, and all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import grpc

from transparent_llm_server.config import ServerConfig
from transparent_llm_server.health_service import HealthLanes
from transparent_llm_server.in_flight import Bounds, InFlight, Phase
from transparent_llm_server.interceptors.concurrency import Lane

_MOST_ARRIVING = 32
"""Calls of one connection, which may be a proxy's, whose request has not come."""


class Lanes:
    """Which lane a call is counted in; `owner_of` knows whose it is."""

    def __init__(self, config: ServerConfig, owner_of: Callable[[grpc.ServicerContext], str]) -> None:
        self.calls = InFlight(_bounds(config))
        """All but those of the health service."""

        self._calls = Lane(self.calls, owner_of)
        self._health = HealthLanes(config.request_arrival_s, config.stall_s)

    def of(self, method: str) -> Lane:
        """The lane of a method, by its path."""
        return self._health.of(method) or self._calls

    def cut(self) -> Counter[Phase]:
        """End calls that have waited too long for their client; how many there were, those of health not counted."""
        self._health.cut()
        return self.calls.cut()

    def stop(self) -> None:
        """Let the threads end. After the server has stopped: gRPC may still have a call to answer."""
        self._health.stop()


def _bounds(config: ServerConfig) -> Bounds:
    """For owners only where callers say who they are. Elsewhere all are one owner, and have all the calls."""
    most_of_owner = config.max_streams_per_owner if config.has_authentication else config.max_streams
    return Bounds(
        most=config.max_streams,
        most_of_owner=min(most_of_owner, config.max_streams),
        most_arriving_of_connection=_MOST_ARRIVING,
        arrival_s=config.request_arrival_s,
        stall_s=config.stall_s,
        unread_bytes=config.max_unread_bytes,
        retry_after_s=config.busy_retry_s,
    )
