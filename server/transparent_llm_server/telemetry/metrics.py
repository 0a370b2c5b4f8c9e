"""Metrics by OpenTelemetry, read by Prometheus. Each server has its own; nothing here is global."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from prometheus_client import CollectorRegistry
from prometheus_client import Metric as Family
from prometheus_client.registry import Collector

from transparent_llm.wire.methods import SERVICE
from transparent_llm.wire.status import REASONS
from transparent_llm_server.events import OTHER, Call, Wait
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.registry.registry import Registry
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.telemetry import catalogue
from transparent_llm_server.telemetry.catalogue import Metric
from transparent_llm_server.telemetry.device_memory import device_memory

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Bounds of the buckets of every histogram."""

_NO_REFUSALS = {"INTERNAL", "CANCELLED", "DEADLINE_EXCEEDED", "UNSPECIFIED"}

Read = Callable[[], Iterable[tuple[Mapping[str, str], float]]]
"""What a metric is now, by its labels."""


class Metrics:
    """Counts calls as a listener, work as a watcher, and reads the rest when it is asked."""

    def __init__(self) -> None:
        inner = CollectorRegistry()
        reader = PrometheusMetricReader(disable_target_info=True, scope_info_enabled=False, registry=inner)
        self.registry = CollectorRegistry()
        """What is served."""

        self.registry.register(_OneAtATime(inner))
        self._provider = MeterProvider([reader], exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        self._meter = self._provider.get_meter("transparent_llm")
        self._calls = _counter(self._meter, catalogue.CALLS)
        self._durations = _histogram(self._meter, catalogue.CALL_DURATION)
        self._sent_bytes = _counter(self._meter, catalogue.SENT_BYTES)
        self._cancellations = _counter(self._meter, catalogue.CANCELLATIONS)
        self._refusals = _counter(self._meter, catalogue.REFUSALS)
        self._stalled = _counter(self._meter, catalogue.STALLED_STREAMS)
        self._late = _counter(self._meter, catalogue.LATE_REQUESTS)
        self._waits = _histogram(self._meter, catalogue.QUEUE_WAIT)
        self._forwards = _histogram(self._meter, catalogue.FORWARD)
        self._active, self._lock = 0, threading.Lock()
        self._read(catalogue.ACTIVE_CALLS, lambda: [({}, self._active)])
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """What is there from the start, a rate sees the first of."""
        self._stalled.add(0)
        self._late.add(0)
        for reason in sorted(REASONS - _NO_REFUSALS):
            self._refusals.add(0, {"reason": reason})

    def watch(self, engine: Engine, queue: RunQueue, runs: RunStore[CompletedRun], registry: Registry) -> None:
        """Read these too, at each scrape."""
        counts = runs.counts
        self._read(catalogue.QUEUED_RUNS, lambda: [({}, engine.queued_runs)])
        self._read(catalogue.WAITING_OWNERS, lambda: [({}, engine.waiting_flows)])
        self._read(catalogue.POSITIONS, lambda: [({}, queue.computed_positions)])
        self._read(catalogue.STORE_BYTES, lambda: [({}, runs.nbytes)])
        self._read(catalogue.STORE_RUNS, lambda: [({}, len(runs))])
        self._read(catalogue.STORE_HITS, lambda: [({}, counts.hits)])
        self._read(catalogue.STORE_MISSES, lambda: [({}, counts.misses)])
        self._read(catalogue.RECOMPUTATIONS, lambda: [({}, counts.recomputations)])
        self._read(catalogue.STORE_EVICTIONS, lambda: [({"why": w}, n) for w, n in list(counts.evictions.items())])
        self._read(catalogue.MODELS, lambda: [({"state": state}, n) for state, n in registry.states().items()])
        self._read(catalogue.DEVICE_MEMORY, lambda: _memory_of(registry))

    def began(self, call: Call) -> None:
        """Count it as under way."""
        if call.service == SERVICE:
            with self._lock:
                self._active += 1

    def ended(self, call: Call) -> None:
        """Count the call by its method and status code, and note its time and bytes."""
        if call.service == SERVICE:
            with self._lock:
                self._active -= 1
        method = {"method": call.method}
        outcome = {"method": call.method, "code": call.code}
        self._calls.add(1, outcome)
        self._durations.record(call.seconds, outcome)
        self._sent_bytes.add(call.sent_bytes, method)
        if call.code == "CANCELLED":
            self._cancellations.add(1, method)
        if call.reason and call.reason not in _NO_REFUSALS:
            self._refusals.add(1, {"reason": call.reason if call.reason in REASONS else OTHER})

    def waited(self, wait: Wait, seconds: float) -> None:
        """Count how long work waited for its turn."""
        self._waits.record(seconds, {"kind": wait.kind})

    def ran(self, model: str, waits: Sequence[Wait], seconds: float) -> None:  # noqa: ARG002 - for traces
        """Note how long a forward pass of a model took."""
        self._forwards.record(seconds, {"model": model})

    def stalled(self, streams: int) -> None:
        """Count streams that were cancelled."""
        self._stalled.add(streams)

    def late(self, calls: int) -> None:
        """Count calls that were cancelled because their request did not arrive."""
        self._late.add(calls)

    def stop(self) -> None:
        """Read nothing any more, and let go of what was read."""
        self._provider.shutdown()

    def _read(self, metric: Metric, read: Read) -> None:
        """Ask for it at each collection."""

        def observe(_: CallbackOptions) -> Iterable[Observation]:
            return [Observation(value, labels) for labels, value in read()]

        is_counter = metric.kind == "counter"
        create = self._meter.create_observable_counter if is_counter else self._meter.create_observable_gauge
        create(_otel_name(metric), [observe], metric.unit, metric.meaning)


class _OneAtATime(Collector):
    """OpenTelemetry's collector mixes the answers of two scrapes that come together."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._registry = registry
        self._lock = threading.Lock()

    def collect(self) -> Iterator[Family]:
        """All metrics, as they were at one moment."""
        with self._lock:
            metrics = list(self._registry.collect())
        yield from metrics


def _memory_of(registry: Registry) -> list[tuple[Mapping[str, str], float]]:
    devices = {device for model in registry for device in model.description.device.split(", ")}
    return [({"device": device, "kind": kind}, n) for device, kind, n in device_memory(devices)]


def _otel_name(metric: Metric) -> str:
    """The exporter puts `_total` behind the names of counters."""
    return metric.name.removesuffix("_total")


def _counter(meter: Meter, metric: Metric) -> Counter:
    return meter.create_counter(_otel_name(metric), metric.unit, metric.meaning)


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.meaning, explicit_bucket_boundaries_advisory=_SECONDS
    )
