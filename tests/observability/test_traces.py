"""Traces, as a real OTLP collector gets them."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from support.servers.certificates import Authority
from support.servers.collector import collecting
from support.servers.engines import SOON, held
from support.servers.figures import LOOPBACK, figures
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.transport.traceparent import traceparent
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.serving import ServedTransformerLens
from transparent_llm_server.telemetry import traces

SENTENCE = "zanzibar quokka"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


def threads() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_a_run_is_a_span_with_its_wait_and_its_forward_pass() -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with RemoteTransparentLlm(server.address) as llm, ThreadPoolExecutor(1) as calls:
            with held(server._engine):
                run = calls.submit(llm.run, [SENTENCE])
                wait_until(lambda: server._engine.queued_runs == 1)
            run.result()
        (call,), (wait,), (forward,) = (collector.spans(name) for name in ("Run", "queue wait", "forward pass"))
        assert (call.name, call.kind, call.failed) == (f"{SERVICE}/Run", "SPAN_KIND_SERVER", False)
        assert call.attributes["rpc.system"] == "grpc"
        assert (call.attributes["rpc.service"], call.attributes["rpc.method"]) == (SERVICE, "Run")
        assert call.attributes["rpc.grpc.status_code"] == 0
        assert call.parent_id == ""
        assert wait.parent_id == forward.parent_id == call.span_id
        assert wait.trace_id == forward.trace_id == call.trace_id
        assert call.start_ns <= wait.start_ns < wait.end_ns <= forward.end_ns <= call.end_ns
        assert wait.end_ns <= forward.start_ns + 1_000_000  # by two clocks
        assert forward.attributes == {"transparent_llm.model": "tiny", "transparent_llm.runs": 1}
        assert collector.resource["service.name"] == "transparent-llm"


def test_spans_tell_of_runs_but_not_what_was_run() -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.run([SENTENCE])
            llm.logits()
            run_id = llm.run_id()
        (run,), (logits,) = collector.spans("Run"), collector.spans("Logits")
        told = logits.attributes["transparent_llm.run"]
        assert len(told) == 16
        assert told == run.attributes["transparent_llm.run"]
        assert logits.attributes["transparent_llm.read_wait_seconds"] > 0
        assert logits.attributes["transparent_llm.sent_bytes"] > 2000
        everything = str([run, logits])
        assert not any(word in everything for word in (*SENTENCE.split(), run_id))


def test_failures_are_marked_and_refusals_are_not_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.run([SENTENCE])
            with pytest.raises(errors.IndexOutOfRangeError):
                llm.residual_in(9)
            monkeypatch.setattr(ServedTransformerLens, "prepare", out_of_ideas)
            with pytest.raises(errors.InternalError):
                llm.run(["again"])
        (refused,), (_, broken) = collector.spans("ResidualIn"), collector.spans("Run", 2)
        assert not refused.failed
        assert refused.attributes["rpc.grpc.status_code"] == grpc.StatusCode.OUT_OF_RANGE.value[0]
        assert refused.attributes["transparent_llm.reason"] == "INDEX_OUT_OF_RANGE"
        assert broken.failed
        assert broken.attributes["rpc.grpc.status_code"] == grpc.StatusCode.INTERNAL.value[0]


def out_of_ideas(*_: Any) -> None:
    raise LookupError("a bug")


def test_made_up_names_are_not_passed_on() -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{SERVICE}/{SENTENCE.partition(' ')[0]}")(b"", timeout=30)
        (unknown,) = collector.spans("other")
        assert unknown.attributes["rpc.grpc.status_code"] == grpc.StatusCode.UNIMPLEMENTED.value[0]
        assert "zanzibar" not in str(unknown)


def test_spans_travel_by_tls_where_the_endpoint_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(authority.path))
    own = authority.issue("localhost")
    credentials = grpc.ssl_server_credentials([(own.key.read_bytes(), own.cert.read_bytes())])
    with collecting(credentials) as collector, running(otlp_endpoint=collector.address) as server:
        assert collector.address.startswith("https://")
        with RemoteTransparentLlm(server.address) as llm:
            llm.model_info()
        collector.spans("ModelInfo")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server sends its last spans however long that takes."""
    monkeypatch.setattr(traces, "_FLUSH_S", SOON)
    monkeypatch.setattr(traces, "_EXPORT_S", SOON)


def test_opentelemetrys_own_settings_hold(patient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=blue")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=secret")
    with collecting() as collector:
        with running(otlp_endpoint=collector.address) as server, RemoteTransparentLlm(server.address) as llm:
            llm.model_info()
        assert len(collector._named("ModelInfo")) == 1
        assert collector.resource["deployment.environment"] == "blue"
        assert collector.metadata["x-key"] == "secret"
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
        with running(otlp_endpoint=collector.address) as server, RemoteTransparentLlm(server.address) as llm:
            llm.model_info()
        assert len(collector._named("ModelInfo")) == 1


# The caller's trace


def call_with(server: Server, header: str) -> None:
    with grpc.insecure_channel(server.address) as channel:
        channel.unary_unary(f"/{SERVICE}/ModelInfo")(b"", timeout=30, metadata=[("traceparent", header)])


def test_a_trace_that_comes_is_continued() -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        call_with(server, f"00-{TRACE}-{PARENT}-01")
        (span,) = collector.spans("ModelInfo")
        assert (span.trace_id, span.parent_id) == (TRACE, PARENT)


@pytest.mark.parametrize("header", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", f"ff-{TRACE}-{PARENT}-01"])
def test_a_header_that_is_none_begins_a_trace(header: str) -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        call_with(server, header)
        (span,) = collector.spans("ModelInfo")
        assert span.parent_id == ""
        assert span.trace_id not in (TRACE, "0" * 32)


def test_a_caller_who_does_not_sample_gets_no_span() -> None:
    with collecting() as collector, running(otlp_endpoint=collector.address) as server:
        call_with(server, f"00-{TRACE}-{PARENT}-00")
        call_with(server, f"00-{TRACE[::-1]}-{PARENT}-01")
        (span,) = collector.spans("ModelInfo")
        assert span.trace_id == TRACE[::-1]


def test_the_client_names_the_active_span_of_its_process() -> None:
    watcher, tracer = Watcher(), TracerProvider(shutdown_on_exit=False).get_tracer("test")
    with collecting() as collector, running(watcher, otlp_endpoint=collector.address) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.run([SENTENCE])
            with tracer.start_as_current_span("mine") as mine:
                llm.logits()
            llm.residual_in(0)
        (logits,) = collector.spans("Logits")
        assert logits.trace_id == f"{mine.get_span_context().trace_id:032x}"
        assert logits.parent_id == f"{mine.get_span_context().span_id:016x}"
        assert ["traceparent" in metadata for name, metadata in watcher.calls if name in ("Run", "Logits")] == [
            False,
            True,
        ]


def test_the_client_names_no_span_that_is_none() -> None:
    assert traceparent() == []
    with trace.use_span(trace.NonRecordingSpan(trace.INVALID_SPAN_CONTEXT)):
        assert traceparent() == []


def test_the_client_does_not_import_opentelemetry() -> None:
    statements = "import json, sys; from transparent_llm.client.transport.traceparent import traceparent"
    report = "print(json.dumps([traceparent(), 'opentelemetry' in sys.modules]))"
    output = subprocess.check_output([sys.executable, "-c", f"{statements}; {report}"], text=True, timeout=120)
    assert json.loads(output) == [[], False]


# A collector that is not there


def test_a_collector_that_is_away_hurts_no_call_and_holds_no_end_up() -> None:
    before = threads()
    with running(otlp_endpoint="http://localhost:1", metrics_listen=LOOPBACK) as server:
        with RemoteTransparentLlm(server.address) as llm:
            for token in range(1, 21):
                llm.run_tokens([[token]])
        assert figures(server)("transparent_llm_calls_total", method="Run", code="OK") == 20
        began = time.perf_counter()
    assert time.perf_counter() - began < 25
    wait_until(lambda: not any("Otel" in name or name == "flush" for name in threads() - before))


def test_a_collector_that_does_not_answer_holds_no_end_up() -> None:
    before = threads()
    with collecting() as collector:
        collector.answers.clear()
        with running(otlp_endpoint=collector.address) as server:
            with RemoteTransparentLlm(server.address) as llm:
                llm.model_info()
            assert collector.called.wait(30)
            began = time.perf_counter()
        assert time.perf_counter() - began < 25
        collector.answers.set()
        wait_until(lambda: not any("Otel" in name or name == "flush" for name in threads() - before))


def test_the_last_spans_are_sent_when_the_server_stops(patient: None) -> None:
    with collecting() as collector:
        with running(otlp_endpoint=collector.address) as server, RemoteTransparentLlm(server.address) as llm:
            llm.model_info()
        assert len(collector._named("ModelInfo")) == 1


@pytest.mark.parametrize("endpoint", ["localhost:4317", "http://", "ftp://localhost:4317", ""])
def test_an_endpoint_that_is_none_is_refused(endpoint: str) -> None:
    with pytest.raises(errors.InvalidRequestError) as refused:
        Server(ServerConfig(otlp_endpoint=endpoint))
    assert refused.value.message == (
        f"otlp_endpoint is {endpoint!r}: write http://HOST:PORT, or https://HOST:PORT for TLS"
    )
