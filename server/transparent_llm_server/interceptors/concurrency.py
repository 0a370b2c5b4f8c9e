"""How many calls may be under way at once, in all and for each owner. The rest are told at once to come back."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from transparent_llm.errors import BusyError
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.config import ServerConfig
from transparent_llm_server.identity import Identity
from transparent_llm_server.interceptors.around import Around


class Concurrency(Around):
    """Counts the calls of our service; health and reflection are not held back.

    The limit for an owner holds where callers say who they are. Elsewhere all are one owner, and have all the calls.
    """

    def __init__(self, config: ServerConfig, identity: Identity) -> None:
        self._identity = identity
        self._most = config.max_streams
        most_of_owner = config.max_streams_per_owner if config.has_authentication else config.max_streams
        self._most_of_owner = min(most_of_owner, config.max_streams)
        self._retry_after_s = config.busy_retry_s
        self._count = 0
        self._count_of: Counter[str] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Refuse, or count for as long as the call takes."""
        if not method.startswith(f"/{SERVICE}/"):
            yield
            return
        owner = self._identity.owner_of(context)
        self._enter(owner)
        try:
            yield
        finally:
            self._leave(owner)

    def _enter(self, owner: str) -> None:
        with self._lock:
            if self._count_of[owner] >= self._most_of_owner:
                raise self._busy("of this owner ", self._most_of_owner)
            if self._count >= self._most:
                raise self._busy("", self._most)
            self._count += 1
            self._count_of[owner] += 1

    def _leave(self, owner: str) -> None:
        with self._lock:
            self._count -= 1
            self._count_of[owner] -= 1
            if not self._count_of[owner]:
                del self._count_of[owner]

    def _busy(self, whose: str, allowed: int) -> BusyError:
        return BusyError(
            f"{allowed} calls {whose}are under way already, more are not answered at once; try again in "
            f"{self._retry_after_s:g} s",
            metadata={"allowed": str(allowed)},
            retry_after_s=self._retry_after_s,
        )
