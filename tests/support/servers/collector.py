"""A collector of traces in this process: the gRPC service of OTLP, which keeps what it gets."""

from __future__ import annotations

import concurrent.futures
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span as WireSpan

from support.servers.polling import wait_until
from transparent_llm_server.rpc.listener import listen_on


@dataclass(frozen=True)
class Span:
    """One that arrived."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start_ns: int
    end_ns: int
    kind: str
    failed: bool
    attributes: dict[str, Any]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps spans; while `answers` is not set it answers nobody."""

    def __init__(self) -> None:
        self.address = ""
        self.resource: dict[str, Any] = {}
        self.metadata: dict[str, str] = {}
        self.answers, self.called = threading.Event(), threading.Event()
        self.answers.set()
        self._spans: list[Span] = []

    def Export(self, request: Any, context: grpc.ServicerContext) -> Any:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        self.called.set()
        self.answers.wait(60)
        for part in request.resource_spans:
            self.resource = _attributes(part.resource.attributes)
            self._spans += [_span(span) for scope in part.scope_spans for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()

    def spans(self, name: str, count: int = 1) -> list[Span]:
        """So many spans of a name, in order of their begin, when they are there; never more."""
        wait_until(lambda: len(self._named(name)) >= count)
        found = self._named(name)
        assert len(found) == count
        return found

    def _named(self, name: str) -> list[Span]:
        return sorted((s for s in self._spans if s.name.rpartition("/")[2] == name), key=lambda span: span.start_ns)


@contextmanager
def collecting(credentials: grpc.ServerCredentials | None = None) -> Iterator[Collector]:
    """One that listens, with TLS if it has credentials."""
    collector = Collector()
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
        if credentials is None:
            collector.address = f"http://localhost:{listen_on(server, 'localhost:0')}"
        else:
            collector.address = f"https://localhost:{listen_on(server, 'localhost:0', lambda: credentials)}"
        server.start()
        try:
            yield collector
        finally:
            collector.answers.set()
            server.stop(None).wait()


def _span(span: WireSpan) -> Span:
    return Span(
        name=span.name,
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start_ns=span.start_time_unix_nano,
        end_ns=span.end_time_unix_nano,
        kind=WireSpan.SpanKind.Name(span.kind),
        failed=span.status.code == 2,
        attributes=_attributes(span.attributes),
    )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}
