"""Every metric under the name that Prometheus shows, with its labels, unit and meaning. docs and tests read it here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """One metric, as Prometheus shows it."""

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    meaning: str
    labels: tuple[str, ...] = ()
    """Each takes values of a closed set."""

    unit: str = ""
    """As OpenTelemetry writes it: s, By."""


CALLS = Metric("transparent_llm_calls_total", "counter", "calls that have ended", ("method", "code"))
CALL_DURATION = Metric(
    "transparent_llm_call_duration_seconds",
    "histogram",
    "how long calls took, from the request to the last message",
    ("method", "code"),
    "s",
)
SENT_BYTES = Metric(
    "transparent_llm_sent_bytes_total",
    "counter",
    "bytes of the messages of calls that have ended, without what went through shared memory",
    ("method",),
    "By",
)
ACTIVE_CALLS = Metric("transparent_llm_active_calls", "gauge", "calls under way, streams included; health is left out")
CANCELLATIONS = Metric(
    "transparent_llm_cancellations_total",
    "counter",
    "calls that the client left, or whose stream was cancelled because nobody read it",
    ("method",),
)
REFUSALS = Metric(
    "transparent_llm_refusals_total",
    "counter",
    "calls that were refused, by the reason of errors.proto; INTERNAL, CANCELLED and DEADLINE_EXCEEDED do not count",
    ("reason",),
)
STALLED_STREAMS = Metric(
    "transparent_llm_stalled_streams_total", "counter", "streams that were cancelled because nobody read them"
)
LATE_REQUESTS = Metric(
    "transparent_llm_late_requests_total", "counter", "calls that were cancelled because their request did not arrive"
)
QUEUE_WAIT = Metric(
    "transparent_llm_queue_wait_seconds",
    "histogram",
    "how long a `run`, or a piece of a `read` that must be computed, waited for the model thread",
    ("kind",),
    "s",
)
QUEUED_RUNS = Metric("transparent_llm_queued_runs", "gauge", "runs that wait for the model thread")
WAITING_OWNERS = Metric(
    "transparent_llm_waiting_owners",
    "gauge",
    "owners that have runs waiting for the model thread; connections, where nobody says who they are",
)
POSITIONS = Metric(
    "transparent_llm_positions_total", "counter", "positions of the runs that were computed, padding included"
)
FORWARD = Metric("transparent_llm_forward_seconds", "histogram", "how long forward passes took", ("model",), "s")
STORE_BYTES = Metric("transparent_llm_run_store_bytes", "gauge", "bytes of all stored runs", unit="By")
STORE_RUNS = Metric("transparent_llm_run_store_runs", "gauge", "stored runs")
STORE_HITS = Metric(
    "transparent_llm_run_store_hits_total", "counter", "runs that a read or `Run` looked for and that were there"
)
STORE_MISSES = Metric(
    "transparent_llm_run_store_misses_total", "counter", "runs that a read or `Run` looked for and that were not there"
)
STORE_EVICTIONS = Metric(
    "transparent_llm_run_store_evictions_total",
    "counter",
    "runs that were dropped: for `room`, for `age` because nobody read them, because their owner `released` them, "
    "or because their model was `unloaded`",
    ("why",),
)
RECOMPUTATIONS = Metric(
    "transparent_llm_recomputations_total",
    "counter",
    "runs computed again after they were dropped (the last 16384 dropped ones are remembered)",
)
DEVICE_MEMORY = Metric(
    "transparent_llm_device_memory_bytes",
    "gauge",
    "memory of the GPUs with models: `used` by all processes, and `total`; of `cpu`, what the server has resident",
    ("device", "kind"),
    "By",
)
MODELS = Metric(
    "transparent_llm_models", "gauge", "models by their state: `loaded`, `loading`, `unloaded`, `failed`", ("state",)
)

CATALOGUE = (
    CALLS,
    CALL_DURATION,
    SENT_BYTES,
    ACTIVE_CALLS,
    CANCELLATIONS,
    REFUSALS,
    STALLED_STREAMS,
    LATE_REQUESTS,
    QUEUE_WAIT,
    QUEUED_RUNS,
    WAITING_OWNERS,
    POSITIONS,
    FORWARD,
    STORE_BYTES,
    STORE_RUNS,
    STORE_HITS,
    STORE_MISSES,
    STORE_EVICTIONS,
    RECOMPUTATIONS,
    DEVICE_MEMORY,
    MODELS,
)
