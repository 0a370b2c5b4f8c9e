"""The lanes of a server's calls: those of health and of administrators on threads of their own, and all others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health

from transparent_llm.wire.methods import ADMIN_SERVICE
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc.concurrency.in_flight import Bounds, InFlight, Phase
from transparent_llm_server.rpc.concurrency.threads import ReadyThreads

_CHECKS, _CHECK_THREADS = 48, 56
_WATCHES, _WATCH_THREADS = 16, 20
"""Calls at a time, and their threads: some more, for those that have just been told to go. So many checks that one
whose request is on its way is not the oldest when others come in a burst."""

HEALTH_THREADS = _CHECK_THREADS + _WATCH_THREADS
"""Of one port."""

QUEUED_CALLS = 512
"""Which gRPC takes at a port beyond those that have a thread: a burst waits there for some tens of ms, and of one more
call gRPC itself would refuse whoever is next."""

_ADMIN_CALLS, _ADMIN_THREADS = 6, 8
_ADMIN_PATH = f"/{ADMIN_SERVICE}/"
_PATH = f"/{health.SERVICE_NAME}/"

_MOST_ARRIVING = 32
"""Calls of one connection, which may be a proxy's, whose request has not come."""


@dataclass(frozen=True)
class Lane:
    """Calls that are counted together."""

    in_flight: InFlight
    owner_of: Callable[[grpc.ServicerContext], str]
    threads: ReadyThreads | None = None
    """Of their own. None: those of the server."""


class Lanes:
    """Which lane a call is counted in; `owner_of` knows whose it is."""

    def __init__(self, config: ServerConfig, owner_of: Callable[[grpc.ServicerContext], str]) -> None:
        self.calls = InFlight(_bounds(config))
        """All but those of health and of administrators."""

        self._calls = Lane(self.calls, owner_of)
        self._health = HealthLanes(config.request_arrival_s, config.stall_s)
        self._admin: Lane | None = None
        if config.admin_tokens_file is not None:  # a full server is one that administrators want to see
            waiting, times = frozenset({Phase.ARRIVING, Phase.ANSWERED}), (config.request_arrival_s, config.stall_s)
            self._admin = _lane("admin", _ADMIN_CALLS, _ADMIN_THREADS, waiting, *times)

    @property
    def own_threads(self) -> int:
        """Of lanes that have their own."""
        return HEALTH_THREADS + (0 if self._admin is None else _ADMIN_THREADS)

    def of(self, method: str) -> Lane:
        """The lane of a method, by its path."""
        if self._admin is not None and method.startswith(_ADMIN_PATH):
            return self._admin
        return self._health.of(method) or self._calls

    def cancel_overdue(self) -> Counter[Phase]:
        """End calls that have waited too long for their client; how many there were, those of health and of
        administrators not counted."""
        self._health.cancel_overdue()
        if self._admin is not None:
            self._admin.in_flight.cancel_overdue()
        return self.calls.cancel_overdue()

    def stop(self) -> None:
        """Let the threads end. After the server has stopped: gRPC may still have a call to answer."""
        self._health.stop()
        if self._admin is not None and self._admin.threads is not None:
            self._admin.threads.shutdown(wait=False)


class HealthLanes:
    """The calls of the health service that one server has in flight, and their threads."""

    def __init__(self, arrival_s: float, stall_s: float) -> None:
        waiting = frozenset({Phase.ARRIVING, Phase.ANSWERED})
        self._check = _lane("health", _CHECKS, _CHECK_THREADS, waiting, arrival_s, stall_s)
        self._watch = _lane("watch", _WATCHES, _WATCH_THREADS, frozenset(Phase), arrival_s, stall_s)

    def of(self, method: str) -> Lane | None:
        """The lane of a method of the health service; None for those of others."""
        if not method.startswith(_PATH):
            return None
        return self._watch if method == f"{_PATH}Watch" else self._check

    def cancel_overdue(self) -> None:
        """End calls that have waited too long for their client."""
        for lane in (self._check, self._watch):
            lane.in_flight.cancel_overdue()

    def stop(self) -> None:
        """Let the threads end. After the server has stopped: gRPC may still have a call to answer."""
        for lane in (self._check, self._watch):
            assert lane.threads is not None
            lane.threads.shutdown(wait=False)


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


def _lane(name: str, most: int, threads: int, give_way: frozenset[Phase], arrival_s: float, stall_s: float) -> Lane:
    bounds = Bounds(most, most, most, give_way, grace_s=0.0, arrival_s=arrival_s, stall_s=stall_s)
    return Lane(InFlight(bounds), lambda _: "", ReadyThreads(threads, name))
