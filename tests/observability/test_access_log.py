"""The log as JSON lines: what an operator's collector gets from a server process."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import grpc
import pytest

from support.servers.collector import collecting
from support.servers.owners import BearerTokenFile
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.events import Call, trace_id_of
from transparent_llm_server.rpc.peer import kind_of_peer
from transparent_llm_server.telemetry.access_log import AccessLog
from transparent_llm_server.telemetry.json_log import JsonLines

SENTENCE = "zanzibar quokka"
TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
CALL = {"time", "level", "logger", "message", "method", "code", "milliseconds", "sent_bytes", "peer"}

OUTCOMES = (
    ("Run", "OK"),
    ("ResidualIn", "OK"),
    ("ResidualIn", "OUT_OF_RANGE"),
    ("ModelInfo", "UNAUTHENTICATED"),
    ("other", "UNIMPLEMENTED"),
)


@contextmanager
def serving(log: Path, *arguments: str) -> Iterator[str]:
    """A server process of the demo model, whose standard error goes to a file; ended by SIGTERM."""
    command = [sys.executable, "-m", "transparent_llm", "serve", "--listen", "localhost:0", "--device", "cpu"]
    with (
        log.open("w", encoding="utf-8") as stderr,
        subprocess.Popen([*command, *arguments], stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            assert line.startswith("ready: "), log.read_text(encoding="utf-8")
            yield line.removeprefix("ready: ").strip()
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def calls(log: Path) -> list[dict[str, Any]]:
    """The lines of calls; every line of the log must be an object."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {line["logger"].partition(".")[0] for line in lines} == {"transparent_llm_server"}  # none of libraries' own
    assert all({"time", "level", "logger", "message"} <= line.keys() for line in lines)
    return [line for line in lines if "method" in line]


def test_every_line_is_an_object_and_calls_have_their_figures(tmp_path: Path) -> None:
    log, file = tmp_path / "log", BearerTokenFile(tmp_path / "tokens", "alice")
    arguments = ("--access-log", "json", "--tokens", str(file.path), "--metrics-listen", "localhost:0")
    began = time.perf_counter()
    with serving(log, *arguments) as address:
        with RemoteTransparentLlm(address, token=file.bearer_tokens["alice"], shared_memory=False) as llm:
            llm.run([SENTENCE])
            llm.residual_in(0)
            with pytest.raises(errors.IndexOutOfRangeError):
                llm.residual_in(99)
        with RemoteTransparentLlm(address, token="wrong") as stranger, pytest.raises(errors.AuthError):
            stranger.model_info()
        alice = [("authorization", f"Bearer {file.bearer_tokens['alice']}")]
        with grpc.insecure_channel(address) as channel, pytest.raises(grpc.RpcError):
            channel.unary_unary(f"/{SERVICE}/Zanzibar")(b"", timeout=30, metadata=alice)
    took_ms = (time.perf_counter() - began) * 1000
    by_outcome = {(call["method"], call["code"]): call for call in calls(log)}
    run, read, refused, stranger_call, unknown = (by_outcome[outcome] for outcome in OUTCOMES)
    assert run.keys() == CALL | {"owner", "positions"}
    assert read.keys() == CALL | {"owner", "value_bytes"}
    assert run["positions"] > 1
    assert read["value_bytes"] == run["positions"] * 128 * 4  # of the demo model's width
    assert (run["owner"], run["level"]) == ("alice", "INFO")
    assert 0 < run["milliseconds"] < took_ms
    assert read["sent_bytes"] > run["sent_bytes"] > 0
    assert run["peer"] == "loopback"
    assert datetime.now(timezone.utc) - datetime.fromisoformat(run["time"]) < timedelta(minutes=5)
    assert refused["reason"] == "INDEX_OUT_OF_RANGE"
    assert stranger_call["reason"] == "UNAUTHENTICATED"
    assert "owner" not in stranger_call
    assert unknown["sent_bytes"] == 0
    text = log.read_text(encoding="utf-8")
    assert not any(word in text.lower() for word in (*SENTENCE.split(), file.bearer_tokens["alice"]))
    assert '"message": "metrics on http://localhost:' in text


def test_the_trace_of_the_caller_is_in_the_line_without_tracing_too(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log, "--access-log", "json") as address, grpc.insecure_channel(address) as channel:
        ask = channel.unary_unary(f"/{SERVICE}/ModelInfo")
        ask(b"", timeout=30, metadata=[("traceparent", f"00-{TRACE}-{SPAN}-00")])
        ask(b"", timeout=30, metadata=[("traceparent", SENTENCE)])
        ask(b"", timeout=30)
    assert [call.get("trace_id") for call in calls(log)] == [TRACE, None, None]


def test_with_tracing_it_is_the_trace_of_the_span(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), collecting() as collector, running(otlp_endpoint=collector.address) as server:
        with RemoteTransparentLlm(server.address) as llm:
            llm.model_info()
        (span,) = collector.spans("ModelInfo")
    (record,) = (record for record in caplog.records if record.getMessage().startswith("ModelInfo OK"))
    assert json.loads(JsonLines().format(record))["trace_id"] == span.trace_id


def test_it_tells_where_a_call_comes_from(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO), tempfile.TemporaryDirectory() as folder:
        for listen in ("localhost:0", f"unix:{folder}/llm.sock"):
            with running(listen=listen) as server, RemoteTransparentLlm(server.address) as llm:
                llm.model_info()
    fields = [getattr(record, "fields", {}) for record in caplog.records]
    assert [one["peer"] for one in fields if one.get("method") == "ModelInfo"] == ["loopback", "unix"]
    assert kind_of_peer("ipv4:192.0.2.1:4000") == kind_of_peer("ipv6:%5B2001:db8::1%5D:4000") == "remote"


def test_text_is_the_default_and_says_the_same_in_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(log) as address, RemoteTransparentLlm(address) as llm:
        llm.model_info()
    lines = log.read_text(encoding="utf-8").splitlines()
    assert [
        line for line in lines if not re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} INFO transparent_llm", line)
    ] == []
    (line,) = (line for line in lines if "ModelInfo" in line)
    assert " INFO transparent_llm_server.telemetry.access_log: ModelInfo OK " in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)


def test_what_is_several_lines_of_text_is_one_line_of_json() -> None:
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "f", 1, "one\n%s", ("two",), sys.exc_info())
    line = JsonLines().format(record)
    assert "\n" not in line
    parsed = json.loads(line)
    assert (parsed["message"], parsed["level"], parsed["logger"]) == ("one\ntwo", "ERROR", "a")
    assert parsed["traceback"].endswith("ValueError: first\nsecond")


@pytest.mark.parametrize(
    ("header", "trace_id"),
    [
        (f"00-{TRACE}-{SPAN}-01", TRACE),
        (f"cc-{TRACE}-{SPAN}-01-more", TRACE),
        (f"ff-{TRACE}-{SPAN}-01", ""),
        (f"00-{'0' * 32}-{SPAN}-01", ""),
        (f"00-{TRACE}-{'0' * 16}-01", ""),
        (f"00-{TRACE.upper()}-{SPAN}-01", ""),
        (f"00-{TRACE}-{SPAN}-01\n", ""),
        ("", ""),
    ],
)
def test_traces_are_read_from_what_w3c_allows(header: str, trace_id: str) -> None:
    assert trace_id_of(header) == trace_id


def test_lines_are_made_by_a_thread_of_their_own_and_none_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    access_log, makers = AccessLog(), set[str | None]()
    calls = [Call("service", f"Method{number}", code="OK", seconds=0.5) for number in range(1000)]

    class Makers(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            makers.add(record.threadName)
            return True

    with caplog.at_level(logging.INFO, "transparent_llm_server"):
        caplog.handler.addFilter(heard := Makers())
        access_log.ended(calls[0])  # before the start, by itself
        assert [record.getMessage() for record in caplog.records] == ["Method0 OK 500.0 ms"]
        access_log.start()
        for call in calls[1:]:
            access_log.ended(call)
        access_log.stop()
        caplog.handler.removeFilter(heard)
        assert [record.getMessage() for record in caplog.records] == [f"{call.method} OK 500.0 ms" for call in calls]
    assert len(makers) == 2


def test_nothing_is_kept_where_no_line_is_wanted(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "transparent_llm_server"):
        AccessLog().ended(Call("service", "Method", code="OK"))
    assert caplog.records == []
