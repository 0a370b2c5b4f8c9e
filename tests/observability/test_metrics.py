"""Each figure of the metrics against what the test did: a real server, a real client, a scrape by HTTP."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from support.network.gate import Gate, gate
from support.servers.engines import held
from support.servers.figures import LOOPBACK, figures, settled
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running, tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.serving import ServedTransformerLens
from transparent_llm_server.rpc.interceptors.base import ContextInterceptor
from transparent_llm_server.telemetry.catalogue import CATALOGUE
from transparent_llm_server.telemetry.device_memory import device_memory

CALLS = "transparent_llm_calls_total"
REFUSALS = "transparent_llm_refusals_total"
EVICTIONS = "transparent_llm_run_store_evictions_total"
RUN = requests.run(RunInput(sentences=("one two",)), "")


def client(server: Server, **options: Any) -> RemoteTransparentLlm:
    """One whose every call is a call of the server: nothing is kept, nothing read ahead."""
    plain = {"cache_bytes": 0, "read_ahead_bytes": 0, "weights_bytes": 0, "rerun": False}
    return RemoteTransparentLlm(server.address, timeout_s=30, **{**plain, **options})


def stream_of(llm: RemoteTransparentLlm, chunk_bytes: int = 16_384) -> Any:
    """The messages of the logits, to be taken or left."""
    options = tensor_pb2.TensorOptions(max_chunk_bytes=chunk_bytes)
    request = requests.of_method("logits", llm.run_id(), options=options)
    return llm._calls._messages("Logits", request, "", time.monotonic() + 30, Interruptible())


# Calls


def test_calls_are_counted_by_method_and_code() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        for _ in range(3):
            llm.run(["one two"])
        llm.residual_in(0)
        with pytest.raises(errors.IndexOutOfRangeError):
            llm.residual_in(9)
        assert llm.is_serving()
        now = settled(server, {"Run": 3, "Check": 1, "ResidualIn": 2}, CALLS, "method")
        assert now(CALLS, method="ResidualIn", code="OK") == 1
        assert now(CALLS, method="ResidualIn", code="OUT_OF_RANGE") == 1
        assert now(CALLS, method="Run", code="OK") == 3
        assert now(CALLS) == now("transparent_llm_call_duration_seconds_count") == 6
        assert now(REFUSALS) == now(REFUSALS, reason="INDEX_OUT_OF_RANGE") == 1
        assert now("transparent_llm_cancellations_total") == 0


def test_how_long_calls_take_is_measured() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm, ThreadPoolExecutor(1) as threads:
        began = time.perf_counter()
        with held(server._engine):
            run = threads.submit(llm.run, ["one two"])
            wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 1)
            queued = time.perf_counter()
            figures(server)  # takes some time, in which the run waits
            waited = time.perf_counter() - queued
        run.result()
        took = time.perf_counter() - began
        now = figures(server)
        assert waited <= now("transparent_llm_call_duration_seconds_sum", method="Run") <= took
        assert now("transparent_llm_call_duration_seconds_bucket", method="Run", le="+Inf") == 1


def test_bytes_are_those_of_the_messages() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server, shared_memory=False) as llm:
        llm.run(["one two three"])
        sent = sum(map(len, stream_of(llm)))
        now = settled(server, {"Run": 1, "Logits": 1}, CALLS, "method")
        assert now("transparent_llm_sent_bytes_total", method="Logits") == sent
        assert sent > llm.logits().nbytes


def test_calls_under_way_are_shown_while_they_are() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, metrics_listen=LOOPBACK) as server, client(server) as llm, ThreadPoolExecutor(1) as threads:
        llm.run(["one two three"])
        assert figures(server)("transparent_llm_active_calls") == 0
        taken = threads.submit(list, stream_of(llm, 1024))
        assert watcher.holding.wait(30)
        assert figures(server)("transparent_llm_active_calls") == 1
        assert figures(server)(CALLS, method="Logits") == 0
        watcher.release.set()
        assert taken.result()
        wait_until(lambda: figures(server)("transparent_llm_active_calls") == 0)
        assert figures(server)(CALLS, method="Logits", code="OK") == 1


def test_health_is_counted_but_not_as_under_way() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        assert llm.is_serving()
        now = figures(server)
        assert now(CALLS, method="Check", code="OK") == 1
        assert now("transparent_llm_active_calls") == 0


def test_calls_that_the_client_leaves_are_cancellations() -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, metrics_listen=LOOPBACK) as server, client(server) as llm:
        llm.run(["one two three"])
        stream = stream_of(llm, 1024)
        next(stream)
        assert watcher.holding.wait(30)
        stream.close()
        now = settled(server, {"Logits": 1}, "transparent_llm_cancellations_total", "method")
        assert now(CALLS, method="Logits", code="CANCELLED") == 1
        assert now(CALLS, method="Logits", code="OK") == 0
        assert now(REFUSALS) == 0


def test_a_run_that_is_given_up_in_the_queue_is_a_cancellation_and_no_turn() -> None:
    with running(metrics_listen=LOOPBACK) as server, grpc.insecure_channel(server.address) as to:
        with held(server._engine):
            run = stub(to).Run.future(RUN, timeout=30)
            wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 1)
            run.cancel()
            wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 0)
        now = settled(server, {"Run": 1}, "transparent_llm_cancellations_total", "method")
        assert now("transparent_llm_queue_wait_seconds_count", kind="run") == 0
        assert now("transparent_llm_forward_seconds_count") == 0
        assert now(REFUSALS) == 0


class Deafening(ContextInterceptor):
    """From the first call on after `way` is known, the server hears nothing more: not that its client leaves it."""

    def __init__(self) -> None:
        self.way: Gate | None = None

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:  # noqa: ARG002
        if self.way is not None:
            self.way.hear_nothing()  # all of the request is there
        yield


def test_a_call_past_its_deadline_is_told_from_one_that_was_left() -> None:
    deafening = Deafening()
    with (
        running(deafening, metrics_listen=LOOPBACK) as server,
        gate(server.address) as way,
        grpc.insecure_channel(way.address) as to,
    ):
        deafening.way = way
        grpc.channel_ready_future(to).result(30)
        with held(server._engine):
            call = stub(to).Run.future(RUN, timeout=2.0)
            settled(server, {"DEADLINE_EXCEEDED": 1}, CALLS, "code")
        assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert figures(server)("transparent_llm_cancellations_total") == 0


def test_a_stream_past_its_deadline_is_told_from_one_that_was_left() -> None:
    deafening, watcher = Deafening(), Watcher(hold_after=1)
    with (
        running(deafening, watcher, metrics_listen=LOOPBACK) as server,
        client(server) as llm,
        gate(server.address) as way,
    ):
        llm.run(["one two three"])
        options = tensor_pb2.TensorOptions(max_chunk_bytes=1024)
        request = requests.of_method("logits", llm.run_id(), options=options)
        deafening.way = way
        with grpc.insecure_channel(way.address) as to:
            grpc.channel_ready_future(to).result(30)
            call = stub(to).Logits(request, timeout=2.0)
            assert watcher.holding.wait(30)
            now = settled(server, {"Run": 1, "Logits": 1}, CALLS, "method")
            assert call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert now(CALLS, method="Logits", code="DEADLINE_EXCEEDED") == 1
        assert now("transparent_llm_cancellations_total") == 0


# Refusals


def test_refusals_are_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = {"max_tokens_per_run": 20, "max_read_bytes": 2000, "queue_length": 1, "busy_retry_s": 3600.0}
    with running(metrics_listen=LOOPBACK, **limits) as server, client(server) as llm:
        with pytest.raises(errors.TooLargeError):
            llm.run_tokens([[1] * 11] * 2)
        llm.run_tokens([[1, 2]])
        with pytest.raises(errors.TooLargeError):
            llm.logits()
        for _ in range(2):
            with pytest.raises(errors.NotFoundError):
                client(server, model="none").run(["one"])
        with ThreadPoolExecutor(1) as threads, held(server._engine):
            waiting = threads.submit(llm.copy().run_tokens, [[3]])
            wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 1)
            with pytest.raises(errors.BusyError):
                llm.copy().run_tokens([[4]])
        waiting.result()
        monkeypatch.setattr(ServedTransformerLens, "execute", out_of_memory)
        with pytest.raises(errors.CapacityError):
            llm.copy().run_tokens([[5]])
        monkeypatch.setattr(ServedTransformerLens, "prepare", out_of_ideas)
        with pytest.raises(errors.InternalError):
            llm.copy().run_tokens([[6]])
        wanted = {"TOO_LONG": 1, "TOO_LARGE": 1, "MODEL_NOT_FOUND": 2, "BUSY": 1, "OUT_OF_MEMORY": 1}
        now = settled(server, wanted, REFUSALS, "reason")
        assert now(CALLS, code="INTERNAL") == 1


def out_of_memory(*_: Any) -> None:
    raise RuntimeError("CUDA out of memory")


def out_of_ideas(*_: Any) -> None:
    raise LookupError("a bug")


def test_reasons_are_there_from_the_start_so_that_rates_see_the_first() -> None:
    with running(metrics_listen=LOOPBACK) as server:
        shown = {
            s.labels["reason"] for family in figures(server).families for s in family.samples if s.name == REFUSALS
        }
        assert {"BUSY", "TOO_LONG", "TOO_LARGE", "OUT_OF_MEMORY", "UNAUTHENTICATED", "LOADING", "DRAINING"} <= shown


def test_a_server_that_loads_refuses_and_counts() -> None:
    server = Server(ServerConfig(listen="localhost:0", metrics_listen=LOOPBACK))
    server.start()
    try:
        with pytest.raises(errors.UnavailableError), client(server) as llm:
            llm.model_info()
        now = figures(server)  # gRPC asks a few times by itself
        assert now(REFUSALS) == now(REFUSALS, reason="LOADING") == now(CALLS, code="UNAVAILABLE") == now(CALLS) > 0
        assert now("transparent_llm_models", state="loaded") == 0
    finally:
        server.stop()


# The model thread


def test_waits_of_runs_are_measured_from_submission_to_the_turn() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm, ThreadPoolExecutor(2) as threads:
        with held(server._engine):
            began = time.perf_counter()
            waiting = [threads.submit(llm.copy().run_tokens, [[token]]) for token in (1, 2)]
            wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 2)
            both_wait = time.perf_counter()
            scrape = figures(server)
            assert scrape("transparent_llm_queue_wait_seconds_count") == 0
            waited = time.perf_counter() - both_wait
        for run in waiting:
            run.result()
        took = time.perf_counter() - began
        now = figures(server)
        assert now("transparent_llm_queue_wait_seconds_count", kind="run") == 2
        assert 2 * waited <= now("transparent_llm_queue_wait_seconds_sum", kind="run") <= 2 * took
        assert now("transparent_llm_queued_runs") == 0


def test_waits_of_reads_are_counted_where_something_is_computed() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        llm.run(["one two"])
        llm.residual_in(1)
        assert figures(server)("transparent_llm_queue_wait_seconds_count", kind="read") == 0
        llm.logits()
        assert figures(server)("transparent_llm_queue_wait_seconds_count", kind="read") == 1


def test_forward_passes_are_counted_for_their_model() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server, model="tiny") as llm:
        server.serve(tiny("llama_gqa").copy(), "second")
        began = time.perf_counter()
        for sentence in ("one", "two", "one"):  # the third is there already
            llm.run([sentence])
        with client(server, model="second") as other:
            other.run(["one"])
        took = time.perf_counter() - began
        now = figures(server)
        assert now.by("model", "transparent_llm_forward_seconds_count") == {"tiny": 2, "second": 1}
        assert 0 < now("transparent_llm_forward_seconds_sum") < took
        assert now("transparent_llm_models", state="loaded") == 2


def test_runs_that_share_a_pass_are_one_pass_and_several_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[float] = []
    execute = ServedTransformerLens.execute

    def watched(model: ServedTransformerLens, prepared: Any) -> Any:
        queued.append(figures(server)("transparent_llm_queued_runs"))
        return execute(model, prepared)

    monkeypatch.setattr(ServedTransformerLens, "execute", watched)
    with running(metrics_listen=LOOPBACK, shared_positions=100) as server, client(server) as llm:
        with ThreadPoolExecutor(3) as threads:
            with held(server._engine):
                waiting = [threads.submit(llm.copy().run_tokens, [[token]]) for token in (1, 2, 3)]
                wait_until(lambda: figures(server)("transparent_llm_queued_runs") == 3)
            for run in waiting:
                run.result()
        now = figures(server)
        assert now("transparent_llm_forward_seconds_count") == 1
        assert now("transparent_llm_queue_wait_seconds_count", kind="run") == 3
        assert queued == [0]


def test_a_pass_that_fails_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        monkeypatch.setattr(ServedTransformerLens, "execute", out_of_memory)
        with pytest.raises(errors.CapacityError):
            llm.run(["one"])
        assert figures(server)("transparent_llm_forward_seconds_count") == 0


# The store


def test_the_store_is_shown_as_it_is() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        llm.run(["one two"])
        llm.copy().run(["three"])
        info, now = llm.server_info(), figures(server)
        assert now("transparent_llm_run_store_runs") == info.stored_runs == 2
        assert now("transparent_llm_run_store_bytes") == info.stored_run_bytes > 0


def test_runs_that_are_looked_for_are_hits_or_misses() -> None:
    hits, misses = "transparent_llm_run_store_hits_total", "transparent_llm_run_store_misses_total"
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        llm.run(["one two"])
        assert (figures(server)(hits), figures(server)(misses)) == (0, 1)
        llm.run(["one two"])
        llm.residual_in(0)
        llm.residual_in(1)
        assert (figures(server)(hits), figures(server)(misses)) == (3, 1)
        server._runs.release(llm.run_id())
        with pytest.raises(errors.NotFoundError):
            llm.residual_in(0)
        assert (figures(server)(hits), figures(server)(misses)) == (3, 2)


def test_runs_leave_the_store_for_room_age_or_release_and_may_come_again() -> None:
    with running(metrics_listen=LOOPBACK, run_store_bytes=20_000, run_ttl_s=3600.0) as server, client(server) as llm:
        llm.run_tokens([[1, 2, 3]])
        first = llm._runs.current().result
        assert 20_000 > first.stored_bytes > 10_000  # one has room, two have not
        llm.run_tokens([[4, 5, 6]])
        assert figures(server).by("why", EVICTIONS) == {"room": 1}
        assert figures(server)("transparent_llm_recomputations_total") == 0
        llm.run_tokens([[1, 2, 3]])
        assert figures(server).by("why", EVICTIONS) == {"room": 2}
        assert figures(server)("transparent_llm_recomputations_total") == 1
        assert server._runs.release(first.run_id)
        assert figures(server).by("why", EVICTIONS) == {"room": 2, "released": 1}
        llm.run_tokens([[1, 2, 3]])
        assert figures(server)("transparent_llm_recomputations_total") == 2
        server._runs._ttl_s = 0.0
        wait_until(lambda: figures(server).by("why", EVICTIONS) == {"room": 2, "released": 1, "age": 1})
        assert figures(server)("transparent_llm_run_store_runs") == 0


# What else a server has


def test_stalled_streams_are_counted() -> None:
    with running(metrics_listen=LOOPBACK, stall_s=0.4) as server, client(server, shared_memory=False) as llm:
        llm.run_tokens([list(range(1, 61))] * 256)  # logits of 30 MB: gRPC takes some MB that nobody reads
        stream = stream_of(llm)
        next(stream)
        wait_until(lambda: figures(server)("transparent_llm_stalled_streams_total") == 1)
        with pytest.raises(grpc.RpcError):
            list(stream)
        settled(server, {"Logits": 1}, "transparent_llm_cancellations_total", "method")


def shows_what_is_resident(server: Server) -> bool:
    """Of this process, of which the system may take pages at any time."""
    before = resident_bytes()
    shown = figures(server)("transparent_llm_device_memory_bytes", device="cpu", kind="used")
    after = resident_bytes()
    return min(before, after) - 2**25 < shown < max(before, after) + 2**25


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * mmap.PAGESIZE


def test_memory_of_the_process_is_shown() -> None:
    with running(metrics_listen=LOOPBACK) as server:
        wait_until(lambda: shows_what_is_resident(server))
        with mmap.mmap(-1, 2**27) as pages:  # not by malloc, which may have kept what was freed
            for _ in range(2**7):
                pages.write(b"x" * 2**20)
            wait_until(lambda: shows_what_is_resident(server))
        assert figures(server).by("device", "transparent_llm_device_memory_bytes").keys() == {"cpu"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")
def test_memory_of_a_gpu_is_shown() -> None:
    shown = {kind: n for device, kind, n in device_memory(["cuda:0"]) if device == "cuda:0"}
    assert 0 < shown["used"] < shown["total"] == torch.cuda.get_device_properties(0).total_memory


def test_refused_tokens_are_counted(tmp_path: Any) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(metrics_listen=LOOPBACK, tokens_file=file.path) as server:
        with client(server, token="wrong") as stranger, pytest.raises(errors.AuthError):
            stranger.model_info()
        with client(server, token=file.bearer_tokens["alice"]) as alice:
            alice.model_info()
        settled(server, {"UNAUTHENTICATED": 1}, REFUSALS, "reason")
        assert figures(server).by("code", CALLS) == {"UNAUTHENTICATED": 1, "OK": 1}


def test_all_metrics_of_the_catalogue_are_exported_with_their_types_and_labels_and_no_other() -> None:
    with running(metrics_listen=LOOPBACK) as server, client(server) as llm:
        llm.run(["one two"])
        llm.logits()
        with pytest.raises(grpc.RpcError):  # a name that nobody knows
            llm._calls.channel.get().unary_unary(f"/{SERVICE}/None")(b"", timeout=30)
        wait_until(lambda: figures(server)("transparent_llm_calls_total") == 3)
        now = figures(server)
        exported = {
            (family.name + ("_total" if family.type == "counter" else ""), family.type) for family in now.families
        }
        late = {"transparent_llm_cancellations_total"}  # until the first
        assert {(m.name, m.kind) for m in CATALOGUE} - exported <= {(name, "counter") for name in late}
        assert exported <= {(m.name, m.kind) for m in CATALOGUE}
        shown = {name: labels for name, labels in now.labels if not name.endswith(("_bucket", "_sum"))}
        for metric in CATALOGUE:
            name = metric.name + ("_count" if metric.kind == "histogram" else "")
            assert metric.name in late or shown[name] == tuple(sorted(metric.labels))
