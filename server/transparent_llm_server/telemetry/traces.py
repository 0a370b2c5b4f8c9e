"""Traces by OTLP: a span for each call, and within it for the wait in the queue and the forward pass. No prompts."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlparse

import grpc
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from transparent_llm.errors import InvalidRequestError
from transparent_llm.network.proxies import route
from transparent_llm.version import __version__
from transparent_llm.wire.methods import RUN_KEY_HEADER
from transparent_llm_server.events import Call, Wait

_EXPORT_S = 5.0
"""What the collector may take for one batch; then it is lost."""

_FLUSH_S = 2.0
"""What the last batches may take when the server stops."""

_DELAY_MS = 1000.0
"""How long a span waits for others to be sent with."""

_FAILURES = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
"""Codes that are the server's failure, by OpenTelemetry's conventions; others are the caller's."""


class Traces:
    """Makes spans as a listener and as a watcher. What the collector does not take is dropped; no call waits for it.

    Raises:
        InvalidRequestError: the endpoint is no http:// or https:// URL.
    """

    def __init__(self, endpoint: str) -> None:
        url = urlparse(endpoint)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise InvalidRequestError(
                f"otlp_endpoint is {endpoint!r}: write http://HOST:PORT, or https://HOST:PORT for TLS"
            )
        is_encrypted = url.scheme == "https"
        way = route(url.netloc, is_encrypted=is_encrypted, wanted=None, environ=os.environ)
        options: Any = tuple(way.options)  # the exporter says that all are text
        self._exporter = OTLPSpanExporter(endpoint, not is_encrypted, timeout=_EXPORT_S, channel_options=options)
        resource = Resource.create({SERVICE_NAME: "transparent-llm", SERVICE_VERSION: __version__})
        self._provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self._exporter, schedule_delay_millis=_DELAY_MS))
        self._tracer = self._provider.get_tracer("transparent_llm")
        self._propagator = TraceContextTextMapPropagator()

    def began(self, call: Call) -> None:
        """Open the call's span, in the caller's trace if there is one."""
        attributes = {"rpc.system": "grpc", "rpc.service": call.service, "rpc.method": call.method}
        if run_key := call.headers.get(RUN_KEY_HEADER):
            attributes["transparent_llm.run"] = hashlib.sha256(run_key.encode()).hexdigest()[:16]
        parent = self._propagator.extract(call.headers, Context())
        name = f"{call.service}/{call.method}"
        call.span = self._tracer.start_span(name, parent, SpanKind.SERVER, attributes)
        call.trace_id = f"{call.span.get_span_context().trace_id:032x}"

    def ended(self, call: Call) -> None:
        """Close the call's span, with how the call ended."""
        span: Span = call.span
        span.set_attribute("rpc.grpc.status_code", _number(call.code))
        span.set_attribute("transparent_llm.sent_bytes", call.sent_bytes)
        if call.read_wait_s:
            span.set_attribute("transparent_llm.read_wait_seconds", call.read_wait_s)
        if call.reason:
            span.set_attribute("transparent_llm.reason", call.reason)
        if call.code in _FAILURES:
            span.set_status(StatusCode.ERROR, call.reason or call.code)
        span.end()

    def waited(self, wait: Wait, seconds: float) -> None:
        """A span for a run's wait; the waits of a read, which may be many, are added up."""
        if wait.call is not None and wait.kind == "read":
            wait.call.read_wait_s += seconds
        elif wait.call is not None:
            self._within(wait.call, "queue wait", seconds, {})

    def ran(self, model: str, waits: Sequence[Wait], seconds: float) -> None:
        """A span in each call whose run was in the pass."""
        for wait in waits:
            if wait.call is not None:
                attributes: dict[str, str | int] = {"transparent_llm.model": model, "transparent_llm.runs": len(waits)}
                self._within(wait.call, "forward pass", seconds, attributes)

    def stop(self) -> None:
        """Send what is left, for a short time; then give up."""
        flush = threading.Thread(target=self._provider.shutdown, name="flush", daemon=True)
        flush.start()
        flush.join(_FLUSH_S)
        if flush.is_alive():
            self._exporter.shutdown()
            flush.join(_FLUSH_S)

    def _within(self, call: Call, name: str, seconds: float, attributes: dict[str, str | int]) -> None:
        """A span that ends now."""
        end = time.time_ns()
        parent = set_span_in_context(call.span, Context())
        span = self._tracer.start_span(name, parent, attributes=attributes, start_time=end - int(seconds * 1e9))
        span.end(end)


def _number(code: str) -> int:
    number: int = getattr(grpc.StatusCode, code, grpc.StatusCode.UNKNOWN).value[0]
    return number
