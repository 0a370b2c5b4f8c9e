"""A port for the probes of a cluster, which bring neither certificates nor tokens."""

from __future__ import annotations

import concurrent.futures

import grpc
from grpc_health.v1 import health_pb2_grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire.frames import NO_COMPRESSION
from transparent_llm_server.health_service import HealthService
from transparent_llm_server.listener import listen_on

_THREADS = 4
"""Each probe needs one for a moment; the health service has its own for those who watch."""


class Probes:
    """Answers the standard health service at `listen` (HOST:PORT, port 0 takes a free one), and nothing else."""

    def __init__(self, listen: str, health: HealthService) -> None:
        self._listen = listen
        self._grpc = grpc.server(
            concurrent.futures.ThreadPoolExecutor(_THREADS, thread_name_prefix="probe"),
            options=[("grpc.so_reuseport", 0), NO_COMPRESSION],
        )
        health_pb2_grpc.add_HealthServicer_to_server(health, self._grpc)

    def start(self) -> str:
        """Listen; returns the address.

        Raises:
            InvalidRequestError: it is taken or cannot be bound.
        """
        try:
            port = listen_on(self._grpc, self._listen)
        except RuntimeError as error:
            raise InvalidRequestError(f"cannot listen on {self._listen} for probes: is it taken? ({error})") from error
        self._grpc.start()
        return f"{self._listen.rpartition(':')[0]}:{port}"

    def stop(self) -> None:
        """Hang up."""
        self._grpc.stop(None).wait()
