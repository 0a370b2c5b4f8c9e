"""What operators see of a server: metrics and traces. Without their settings no library for them is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transparent_llm.errors import InvalidRequestError
from transparent_llm.extras import missing
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.events import CallListener, WorkEvents
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.registry.registry import Registry
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore

if TYPE_CHECKING:
    from transparent_llm_server.telemetry.endpoint import Endpoint
    from transparent_llm_server.telemetry.metrics import Metrics
    from transparent_llm_server.telemetry.traces import Traces


class Telemetry:
    """Of one server, from `start` to `stop`.

    Raises:
        InvalidRequestError: an address that is none, or the extra [observability] is not installed.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._metrics: Metrics | None = None
        self._endpoint: Endpoint | None = None
        self._traces: Traces | None = None
        if config.metrics_listen is not None:
            self._metrics, self._endpoint = _metrics(config.metrics_listen)
        if config.otlp_endpoint is not None:
            self._traces = _traces(config.otlp_endpoint)
        parts = [part for part in (self._traces, self._metrics) if part is not None]
        self.listeners: list[CallListener] = [*parts]
        """Are told of calls."""

        self.work_events = WorkEvents([*parts])
        """Is told of work on its way to the model."""

    @property
    def metrics_address(self) -> str:
        """Where metrics are served, once started: HOST:PORT; empty if they are not."""
        return self._endpoint.address if self._endpoint is not None else ""

    def watch(self, engine: Engine, queue: RunQueue, runs: RunStore[CompletedRun], registry: Registry) -> None:
        """Measure the queue, the stored runs and the models of a server."""
        if self._metrics is not None:
            self._metrics.watch(engine, queue, runs, registry)

    def stalled(self, streams: int) -> None:
        """Count streams that were cancelled because nobody read them."""
        if self._metrics is not None:
            self._metrics.stalled(streams)

    def late(self, calls: int) -> None:
        """Count calls that were cancelled because their request did not arrive."""
        if self._metrics is not None:
            self._metrics.late(calls)

    def start(self) -> None:
        """Serve metrics.

        Raises:
            InvalidRequestError: the address is taken or cannot be bound.
        """
        if self._endpoint is not None:
            self._endpoint.start()

    def stop(self) -> None:
        """Serve no more, and send the last spans."""
        if self._endpoint is not None:
            self._endpoint.stop()
        if self._metrics is not None:
            self._metrics.stop()
            self._metrics = None
        if self._traces is not None:
            self._traces.stop()
            self._traces = None


def _metrics(listen: str) -> tuple[Metrics, Endpoint]:
    try:
        from transparent_llm_server.telemetry.endpoint import Endpoint
        from transparent_llm_server.telemetry.metrics import Metrics
    except ModuleNotFoundError as error:
        raise _needed("--metrics-listen", error) from error

    metrics = Metrics()
    return metrics, Endpoint(listen, metrics.registry)


def _traces(endpoint: str) -> Traces:
    try:
        from transparent_llm_server.telemetry.traces import Traces
    except ModuleNotFoundError as error:
        raise _needed("--otlp-endpoint", error) from error

    return Traces(endpoint)


def _needed(flag: str, error: ModuleNotFoundError) -> InvalidRequestError:
    return InvalidRequestError(missing(flag, "observability", error))
