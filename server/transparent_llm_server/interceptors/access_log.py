"""One line for every call: what, how it ended, how long it took, whose. Never what was asked or answered."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from transparent_llm_server.identity import Identity
from transparent_llm_server.interceptors.around import Around

log = logging.getLogger(__name__)


class AccessLog(Around):
    """Logs calls at level INFO, with the owner where there is one."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """Time the call."""
        started = time.perf_counter()
        try:
            yield
        finally:
            milliseconds = (time.perf_counter() - started) * 1000
            owner = self._identity.known(context)
            of_owner = f" of {owner}" if owner else ""
            log.info("%s %s %.1f ms%s", method.rpartition("/")[2], _outcome(context), milliseconds, of_owner)


def _outcome(context: grpc.ServicerContext) -> str:
    code = context.code()  # type: ignore[attr-defined]  # there since grpcio 1.45, not in the stubs
    if code is not None:
        return str(getattr(code, "name", code))
    return "OK" if context.is_active() else "CANCELLED"
