"""A port for the probes of a cluster, which bring neither certificates nor tokens."""

from __future__ import annotations

import grpc
from grpc_health.v1 import health_pb2_grpc

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire.frames import NO_COMPRESSION
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.health.service import HealthService
from transparent_llm_server.rpc.concurrency.lanes import HEALTH_THREADS, QUEUED_CALLS, HealthLanes, Lane
from transparent_llm_server.rpc.concurrency.threads import ReadyThreads
from transparent_llm_server.rpc.interceptors.arrival import Arrival
from transparent_llm_server.rpc.interceptors.concurrency import Concurrency
from transparent_llm_server.rpc.interceptors.errors import Errors
from transparent_llm_server.rpc.listener import bound_address, listen_on


class Probes:
    """Answers the standard health service at `listen` (HOST:PORT, port 0 takes a free one), and nothing else.

    On threads of its own, which no call to another port can take.
    """

    def __init__(self, listen: str, health: HealthService, config: ServerConfig) -> None:
        self._listen = listen
        self._lanes = HealthLanes(config.request_arrival_s, config.stall_s)
        self._grpc = grpc.server(
            ReadyThreads(1, "probe"),  # for what is not of the health service, which there is none of
            interceptors=[Errors(lambda error: error), Concurrency(self._lane_of), Arrival()],
            options=[
                ("grpc.so_reuseport", 0),
                NO_COMPRESSION,
                ("grpc.max_receive_message_length", config.max_metadata_bytes),
                ("grpc.max_metadata_size", config.max_metadata_bytes),
                ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),
            ],
            maximum_concurrent_rpcs=HEALTH_THREADS + QUEUED_CALLS,
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
            raise InvalidRequestError(f"cannot listen on {self._listen} for probes: is it in use? ({error})") from error
        self._grpc.start()
        return bound_address(self._listen, port)

    def cancel_overdue(self) -> None:
        """End calls that have waited too long for their client."""
        self._lanes.cancel_overdue()

    def stop(self) -> None:
        """Answer no more; calls that are under way are cancelled."""
        self._grpc.stop(None).wait()
        self._lanes.stop()

    def _lane_of(self, method: str) -> Lane:
        lane = self._lanes.of(method)
        assert lane is not None, method  # nothing else is registered here
        return lane
