"""The service as any language sees it: raw messages through the generated stub."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import torch
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running, tiny
from support.servers.stub import stub
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.methods import METHODS, QUEUE_POSITION_HEADER, SERVICE
from transparent_llm.wire.tensors import encode
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

ROWS = [[1, 2, 3, 4, 5, 6], [7, 8, 9]]
INDICES: dict[str, tuple[int, ...]] = {
    "tokens": (),
    "logits": (),
    "residual_in": (1,),
    "residual_after_attn": (0,),
    "residual_out": (1,),
    "ffn_out": (0,),
    "decomposed_ffn_out": (0, 1, 2),
    "neuron_activations": (1, 0, 1),
    "neuron_output": (1, 200),
    "neuron_outputs": (1,),
    "attention_matrix": (0, 1, 3),
    "attention_output": (0, 1, 2, 1),
    "decomposed_attn": (1, 0),
}


@pytest.fixture(scope="module")
def service() -> Iterator[Any]:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        yield stub(channel)


@pytest.fixture(scope="module")
def run(service: Any) -> Any:
    request = service_pb2.RunRequest()
    for row in ROWS:
        request.tokens.sequences.add(token_ids=row)
    return service.Run(request)


def local_value(name: str) -> torch.Tensor:
    local = tiny().copy()
    local.run_tokens(ROWS)
    if name == "neuron_outputs":
        return torch.stack([local.neuron_output(1, neuron) for neuron in range(256)])
    value: torch.Tensor = getattr(local, name)(*INDICES[name])
    return value


def read(service: Any, run: Any, name: str, options: tensor_pb2.TensorOptions) -> tuple[Assembler, list[Any]]:
    method = METHODS[name]
    target = run.run_id if method.of_run else ""
    messages = list(
        getattr(service, method.rpc)(requests.of_method(method.name, target, *INDICES[name], options=options))
    )
    assembler = Assembler()
    for message in messages:
        assembler.add(message.SerializeToString())
    return assembler, messages


def test_run_answers_everything_about_its_tokens(run: Any) -> None:
    assert (run.batch_size, run.n_pos) == (2, 6)
    assert list(run.token_ids) == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0, 0]
    assert list(run.mask) == [True] * 9 + [False] * 3
    assert list(run.token_strings) == tiny().tokens_to_strings(torch.tensor(run.token_ids))
    assert len(run.run_id) == len(run.model_digest) == 64
    assert run.model_digest == tiny().describe().digest
    local = tiny().copy()
    local.run_tokens(ROWS)
    assert run.stored_bytes == local.values().nbytes


def test_batch_size(service: Any, run: Any) -> None:
    assert service.BatchSize(service_pb2.BatchSizeRequest(run_id=run.run_id)).batch_size == 2


@pytest.mark.parametrize("name", list(INDICES))
def test_every_tensor_has_a_header_that_says_what_it_is(name: str, service: Any, run: Any) -> None:
    wanted = local_value(name)
    assembler, messages = read(service, run, name, tensor_pb2.TensorOptions())
    head = messages[0].header
    assert (head.name, tuple(head.dims), tuple(head.shape)) == (name, METHODS[name].dims, tuple(wanted.shape))
    assert head.total_bytes == wanted.nbytes
    assert len(head.etag) == 32
    assert len(messages) == 1  # a small tensor is a single message
    assert torch.equal(assembler.tensors()[0][1], wanted)


@pytest.mark.parametrize("name", list(INDICES))
def test_every_tensor_can_be_sliced_on_every_axis(name: str, service: Any, run: Any) -> None:
    wanted = local_value(name)
    dims = METHODS[name].dims or ()
    options = tensor_pb2.TensorOptions()
    for axis in dims:
        options.slices.add(axis=axis, start=1, stop=-1 if wanted.shape[dims.index(axis)] > 2 else 2, step=2)
    cut = tuple(slice(1, -1 if size > 2 else 2, 2) for size in wanted.shape)
    assembler, messages = read(service, run, name, options)
    assert torch.equal(assembler.tensors()[0][1], wanted[cut])
    assert tuple(messages[0].header.shape) == tuple(wanted[cut].shape)


@pytest.mark.parametrize("wire", [tensor_pb2.DTYPE_BF16, tensor_pb2.DTYPE_F16, tensor_pb2.DTYPE_F64])
@pytest.mark.parametrize("name", [name for name in INDICES if name != "tokens"])
def test_every_tensor_can_be_cast(name: str, wire: Any, service: Any, run: Any) -> None:
    kinds = {tensor_pb2.DTYPE_BF16: torch.bfloat16, tensor_pb2.DTYPE_F16: torch.float16}
    assembler, messages = read(service, run, name, tensor_pb2.TensorOptions(dtype=wire))
    assert messages[0].header.dtype == wire
    assert torch.equal(assembler.tensors()[0][1], local_value(name).to(kinds.get(wire, torch.float64)))


@pytest.mark.parametrize("name", list(INDICES))
def test_every_tensor_can_be_resumed_at_any_byte(name: str, service: Any, run: Any) -> None:
    whole, messages = read(service, run, name, tensor_pb2.TensorOptions(max_chunk_bytes=100))
    etag = messages[0].header.etag
    everything = b"".join(message.data for message in messages)
    assert len(messages) == -(-len(everything) // 100)
    for offset in {1, len(everything) // 2, len(everything)}:
        method = METHODS[name]
        options = tensor_pb2.TensorOptions(resume_offset=offset, etag=etag)
        target = run.run_id if method.of_run else ""
        rest = list(
            getattr(service, method.rpc)(requests.of_method(method.name, target, *INDICES[name], options=options))
        )
        assert rest[0].header.etag == etag
        assert rest[0].offset == offset
        assert b"".join(message.data for message in rest) == everything[offset:]
    assert whole.complete


def test_an_etag_of_other_bits_starts_again_at_zero(service: Any, run: Any) -> None:
    options = tensor_pb2.TensorOptions(resume_offset=8, etag="of something else")
    assembler, messages = read(service, run, "residual_out", options)
    assert messages[0].offset == 0
    assert torch.equal(assembler.tensors()[0][1], local_value("residual_out"))


def test_a_run_made_again_has_another_etag(service: Any) -> None:
    request = service_pb2.RunRequest(sentences=service_pb2.SentenceBatch(sentences=["again"]))
    etags = []
    for _ in range(2):
        run_id = service.Run(request).run_id
        etags.append(next(iter(service.Logits(service_pb2.LogitsRequest(run_id=run_id)))).header.etag)
        assert service.ReleaseRun(service_pb2.ReleaseRunRequest(run_id=run_id)).released
    assert etags[0] != etags[1]
    assert not service.ReleaseRun(service_pb2.ReleaseRunRequest(run_id=run_id)).released


def test_unembed_takes_every_floating_type(service: Any) -> None:
    vector = torch.linspace(-1, 1, 64)
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        request = service_pb2.UnembedRequest(t=encode(vector.to(dtype)), normalize=True)
        assembler = Assembler()
        for message in service.Unembed(request):
            assembler.add(message.SerializeToString())
        assert torch.equal(assembler.tensors()[0][1], tiny().unembed(vector.to(dtype), normalize=True))


def failure(call: Any) -> tuple[grpc.StatusCode, status_pb2.Status, dict[str, Any]]:
    """Code, rich status and details by type name of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call())
    error: Any = caught.value
    metadata = dict(error.trailing_metadata())
    status = status_pb2.Status.FromString(metadata["grpc-status-details-bin"])
    details = {}
    for packed in status.details:
        kind = getattr(error_details_pb2, packed.type_url.rpartition(".")[2])
        message = kind()
        packed.Unpack(message)
        details[kind.DESCRIPTOR.name] = message
    return error.code(), status, details


def test_an_index_error_names_axis_size_and_index(service: Any, run: Any) -> None:
    request = service_pb2.ResidualInRequest(run_id=run.run_id, layer=9)
    code, status, details = failure(lambda: service.ResidualIn(request))
    assert code is grpc.StatusCode.OUT_OF_RANGE
    assert status.message == "layer 9 is out of range: valid indices are 0 to 1"
    info = details["ErrorInfo"]
    assert (info.domain, info.reason) == ("transparent-llm", "INDEX_OUT_OF_RANGE")
    assert dict(info.metadata) == {"axis": "layer", "size": "2", "got": "9"}
    assert details["BadRequest"].field_violations[0].field == "layer"


def test_a_forgotten_index_is_no_zero(service: Any, run: Any) -> None:
    code, status, details = failure(
        lambda: service.AttentionMatrix(service_pb2.AttentionMatrixRequest(run_id=run.run_id, layer=1))
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert status.message == "AttentionMatrix needs batch_i, head; an index has no default"
    assert details["ErrorInfo"].reason == "MISSING_ARGUMENT"


def test_an_unknown_run_is_not_found(service: Any) -> None:
    code, _, details = failure(lambda: service.Logits(service_pb2.LogitsRequest(run_id="nothing")))
    assert code is grpc.StatusCode.NOT_FOUND
    assert details["ErrorInfo"].reason == "RUN_NOT_FOUND"
    assert (details["ResourceInfo"].resource_type, details["ResourceInfo"].resource_name) == ("run", "nothing")


@pytest.mark.parametrize(
    ("options", "reason", "text"),
    [
        (
            tensor_pb2.TensorOptions(slices=[tensor_pb2.AxisSlice(axis="head")]),
            "INVALID_SLICE",
            "there is no axis 'head'; this tensor has batch, pos, d_model",
        ),
        (
            tensor_pb2.TensorOptions(slices=[tensor_pb2.AxisSlice(axis="pos", step=0)]),
            "INVALID_SLICE",
            "step 0 on axis 'pos': a step must be at least 1",
        ),
        (
            tensor_pb2.TensorOptions(dtype=tensor_pb2.DTYPE_I64),
            "INVALID_DTYPE",
            "a F32 tensor cannot be sent as I64; allowed: F16, BF16, F32, F64",
        ),
        (
            tensor_pb2.TensorOptions(resume_offset=5),
            "INVALID_RESUME",
            "resume_offset 5 needs the etag of the interrupted stream",
        ),
    ],
)
def test_options_that_do_not_fit(options: Any, reason: str, text: str, service: Any, run: Any) -> None:
    request = service_pb2.ResidualInRequest(run_id=run.run_id, layer=0, options=options)
    code, status, details = failure(lambda: service.ResidualIn(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert (details["ErrorInfo"].reason, status.message) == (reason, text)


def test_a_bug_is_an_incident_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, service: Any, run: Any
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError(" ".join(("secret", "internals")))

    monkeypatch.setattr("transparent_llm_server.models.derived.run.RunValues.ffn_out", broken)
    request = service_pb2.FfnOutRequest(run_id=run.run_id, layer=0)
    code, status, details = failure(lambda: service.FfnOut(request))
    assert code is grpc.StatusCode.INTERNAL
    incident = details["ErrorInfo"].metadata["incident"]
    assert incident in status.message
    assert "secret internals" not in status.message
    assert incident in caplog.text
    assert "ZeroDivisionError" in caplog.text
    assert "secret internals" not in caplog.text  # it could be a prompt
    monkeypatch.undo()
    assert list(service.FfnOut(request))  # the next call works


def test_a_device_out_of_memory_is_told_and_the_next_call_works(
    monkeypatch: pytest.MonkeyPatch, service: Any, run: Any
) -> None:
    def exhausted(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("transparent_llm_server.models.derived.run.RunValues.ffn_out", exhausted)
    request = service_pb2.FfnOutRequest(run_id=run.run_id, layer=0)
    code, _, details = failure(lambda: service.FfnOut(request))
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "OUT_OF_MEMORY"
    monkeypatch.undo()
    assert list(service.FfnOut(request))


class Blocker:
    """Occupies the model thread until it is released."""

    def __init__(self, server: Server) -> None:
        self.started, self.release = threading.Event(), threading.Event()
        server._engine.submit(self._wait)
        assert self.started.wait(SOON)

    def _wait(self) -> None:
        self.started.set()
        self.release.wait(30)


def test_a_full_queue_is_busy_and_says_when_to_come_back() -> None:
    with running(queue_length=1, busy_retry_s=2.5) as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        blocker = Blocker(server)
        server._engine.submit(lambda: None)
        request = service_pb2.RunRequest(sentences=service_pb2.SentenceBatch(sentences=["x"]))
        code, status, details = failure(lambda: [service.Run(request)])
        blocker.release.set()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details["ErrorInfo"].reason == "BUSY"
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 2500
    assert status.message == "1 calls are already waiting for the model; try again in 2.5 s"


def test_a_run_that_waits_is_told_its_place_if_it_asks() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        run = channel.unary_stream(f"/{SERVICE}/Run", service_pb2.RunRequest.SerializeToString)

        def begun(token: int, **metadata: str) -> Any:
            tokens = service_pb2.TokenBatch(sequences=[service_pb2.TokenSequence(token_ids=[token])])
            return run(service_pb2.RunRequest(tokens=tokens), metadata=tuple(metadata.items()))

        def place(call: Any) -> str | None:
            return dict(call.initial_metadata()).get(QUEUE_POSITION_HEADER)

        asking = {QUEUE_POSITION_HEADER: ""}
        with held(server._engine):
            told = []
            for token in (1, 2):
                told.append(begun(token, **asking))
                assert place(told[-1]) == str(token)
            silent = begun(3)
            wait_until(lambda: server._engine.queued_runs == 3)
        assert [len(list(call)) for call in (*told, silent)] == [1, 1, 1]
        first, again = begun(4, **asking), begun(1, **asking)
        assert [len(list(call)) for call in (first, again)] == [1, 1]
        assert [place(call) for call in (silent, first, again)] == [None, None, None]


def test_queued_work_whose_deadline_passed_is_never_done() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        grpc.channel_ready_future(channel).result(SOON)
        service = stub(channel)
        blocker = Blocker(server)
        request = service_pb2.RunRequest(sentences=service_pb2.SentenceBatch(sentences=["x"]))
        with pytest.raises(grpc.RpcError) as caught:
            service.Run(request, timeout=0.5)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        wait_until(lambda: server._engine.queued_runs == 0)  # the server may learn of it later
        blocker.release.set()
        assert service.ServerInfo(service_pb2.ServerInfoRequest()).stored_runs == 0


def test_queued_work_whose_client_left_is_never_done() -> None:
    watcher = Watcher()
    with running(watcher) as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        blocker = Blocker(server)
        request = service_pb2.RunRequest(sentences=service_pb2.SentenceBatch(sentences=["x"]))
        call = service.Run.future(request)
        wait_until(lambda: server._engine.queued_runs == 1)
        ((_, queued),) = server._engine._runs
        call.cancel()
        while not queued.cancelled():
            threading.Event().wait(0.01)
        blocker.release.set()
        assert service.ServerInfo(service_pb2.ServerInfoRequest()).stored_runs == 0


def test_cancellation_is_observed_between_chunks() -> None:
    watcher = Watcher(hold_after=3)
    with running(watcher) as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        request = service_pb2.RunRequest()
        request.tokens.sequences.add(token_ids=range(1, 61))
        run_id = service.Run(request).run_id
        options = tensor_pb2.TensorOptions(max_chunk_bytes=1024)
        request = service_pb2.DecomposedAttnRequest(run_id=run_id, batch_i=0, layer=0, options=options)
        call = service.DecomposedAttn(request)
        next(call)
        assert watcher.holding.wait(SOON)
        call.cancel()
        assert watcher.cancelled.wait(SOON)
    assert watcher.messages <= 5  # of 3,600


def test_a_chunk_is_never_larger_than_the_server_allows() -> None:
    with running(max_chunk_bytes=500) as server, grpc.insecure_channel(server.address) as channel:
        service = stub(channel)
        request = service_pb2.RunRequest()
        request.tokens.sequences.add(token_ids=[1, 2, 3])
        options = tensor_pb2.TensorOptions(max_chunk_bytes=2**31)
        logits = service_pb2.LogitsRequest(run_id=service.Run(request).run_id, options=options)
        assert [len(message.data) for message in service.Logits(logits)] == [500] * 12


def test_limits_of_a_run_are_told_with_both_numbers() -> None:
    with running(max_sentences_per_run=2, max_tokens_per_run=10) as server:
        with grpc.insecure_channel(server.address) as channel:
            service = stub(channel)
            many, long = service_pb2.RunRequest(), service_pb2.RunRequest()
            for _ in range(3):
                many.tokens.sequences.add(token_ids=[1])
            long.tokens.sequences.add(token_ids=range(6))
            long.tokens.sequences.add(token_ids=[1])
            _, status, details = failure(lambda: [service.Run(many)])
            assert status.message == "3 sentences at once, this server allows 2; send fewer"
            _, status, details = failure(lambda: [service.Run(long)])
            assert status.message == "12 tokens at once, this server allows 10 (padding included); send fewer"
            assert (details["ErrorInfo"].metadata["needed"], details["ErrorInfo"].metadata["allowed"]) == ("12", "10")


def health_of(channel: grpc.Channel, name: str) -> int:
    checker = health_pb2_grpc.HealthStub(channel)
    status: int = checker.Check(health_pb2.HealthCheckRequest(service=name)).status
    return status


def test_while_it_loads_calls_are_told_so_and_health_says_not_serving() -> None:
    server = Server(ServerConfig(listen="127.0.0.1:0"))
    server.start()
    serving, not_serving = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
    with grpc.insecure_channel(server.address) as channel:
        code, _, details = failure(lambda: [stub(channel).ModelInfo(service_pb2.ModelInfoRequest())])
        assert code is grpc.StatusCode.UNAVAILABLE
        assert details["ErrorInfo"].reason == "LOADING"
        assert details["RetryInfo"].retry_delay.ToMilliseconds() == 1000
        assert [health_of(channel, name) for name in ("", SERVICE)] == [not_serving, not_serving]
        server.serve(tiny(), "tiny")
        server.ready()
        assert [health_of(channel, name) for name in ("", SERVICE)] == [serving, serving]
        assert stub(channel).ModelInfo(service_pb2.ModelInfoRequest()).info.name == "tiny"
    server.stop()


def test_reflection_describes_every_call() -> None:
    with running() as server, grpc.insecure_channel(server.address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        assert set(database.get_services()) >= {SERVICE, "grpc.health.v1.Health"}
        file = database.FindFileContainingSymbol(SERVICE)
        assert len(file.service[0].method) == 50
