"""Who gets in: a token of the file, or nobody; health is for all, and whoever is refused holds no thread."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from support.servers.engines import SOON
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, connect, errors
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig

RPCS = list(service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].methods)
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
NO_TOKEN = (
    "this server requires a token: pass token=... or set TRANSPARENT_LLM_TOKEN (on the wire: the metadata "
    "`authorization: Bearer TOKEN`); its operator makes one with `transparent-llm token OWNER`"
)
NO_BEARER = "the metadata `authorization` must be present exactly once and be `Bearer TOKEN`"
WRONG = "this server does not know the token; ask its operator whether it was replaced"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> BearerTokenFile:
    return BearerTokenFile(tmp_path_factory.mktemp("access") / "tokens", "alice", "bob")


@pytest.fixture(scope="module")
def server(file: BearerTokenFile) -> Iterator[Server]:
    with running(tokens_file=file.path) as server:
        yield server


@pytest.fixture
def channel(server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address) as channel:
        yield channel


def refusal(call: Any) -> tuple[grpc.StatusCode, str, str]:
    """Code, reason and message of a call that fails."""
    with pytest.raises(grpc.RpcError) as caught:
        list(call)
    error: Any = caught.value
    status = status_pb2.Status.FromString(dict(error.trailing_metadata())["grpc-status-details-bin"])
    info = error_details_pb2.ErrorInfo()
    status.details[0].Unpack(info)
    assert status.code == error.code().value[0]
    return error.code(), info.reason, status.message


def called(channel: grpc.Channel, rpc: Any, metadata: list[tuple[str, str]]) -> Any:
    """A call of the service with an empty request; one answer is a stream of one."""
    return channel.unary_stream(f"/{SERVICE}/{rpc.name}")(b"", metadata=metadata, timeout=SOON)


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([], NO_TOKEN),
        ([("authorization", "Bearer wrong")], WRONG),
        ([("authorization", "Bearer ")], WRONG),
        ([("authorization", "Basic YTpi")], NO_BEARER),
        ([("authorization", "")], NO_BEARER),
    ],
    ids=["none", "wrong", "empty", "basic", "nothing"],
)
def test_every_call_of_the_service_needs_a_token(
    rpc: Any, metadata: list[tuple[str, str]], message: str, channel: grpc.Channel
) -> None:
    expected = (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", message)
    assert refusal(called(channel, rpc, metadata)) == expected


@pytest.mark.parametrize("rpc", RPCS, ids=lambda rpc: rpc.name)
def test_a_token_opens_every_call(rpc: Any, channel: grpc.Channel, file: BearerTokenFile) -> None:
    """To an answer, or to a refusal of the empty request."""
    call = called(channel, rpc, [("authorization", f"bearer {file.bearer_tokens['alice']}")])  # a scheme has no case
    with suppress(grpc.RpcError):
        list(call)
    assert call.code() in (grpc.StatusCode.OK, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT)


def test_two_tokens_are_none(channel: grpc.Channel, file: BearerTokenFile) -> None:
    metadata = [("authorization", f"Bearer {token}") for token in file.bearer_tokens.values()]
    code, _, message = refusal(called(channel, RPCS[0], metadata))
    assert (code, message) == (grpc.StatusCode.UNAUTHENTICATED, NO_BEARER)


def test_reflection_needs_a_token_too(channel: grpc.Channel, file: BearerTokenFile) -> None:
    ask = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    code, _, message = refusal(ask(iter([request]), timeout=SOON))
    assert (code, message) == (grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)
    token = [("authorization", f"Bearer {file.bearer_tokens['bob']}")]
    (answer,) = ask(iter([request]), metadata=token, timeout=SOON)
    assert SERVICE in {service.name for service in answer.list_services_response.service}


def test_health_is_told_to_everybody(channel: grpc.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    serving = health_pb2.HealthCheckResponse.SERVING
    assert health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=SOON).status == serving
    watch = health.Watch(health_pb2.HealthCheckRequest(service=""), timeout=SOON)
    assert next(watch).status == serving
    watch.cancel()
    with RemoteTransparentLlm(channel_target(channel), timeout_s=SOON) as llm:
        assert llm.is_serving()


def channel_target(channel: Any) -> str:
    target: str = channel._channel.target().decode()
    return target.removeprefix("dns:///")


def test_a_client_is_told_what_to_do(server: Server, file: BearerTokenFile) -> None:
    with pytest.raises(errors.AuthError) as caught:
        connect(server.address)
    assert str(caught.value) == NO_TOKEN
    assert caught.value.reason == "UNAUTHENTICATED"
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(errors.AuthError, match="does not know the token"):
        connect(server.address, token="wrong")
    with connect(server.address, token=file.bearer_tokens["alice"]) as llm:
        llm.run_tokens([[1, 2, 3]])
        assert llm.residual_out(1).shape == (1, 3, 64)


def test_a_token_is_asked_for_before_the_models_are_there(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    server = Server(ServerConfig(listen="localhost:0", tokens_file=file.path))
    server.start()
    try:
        with RemoteTransparentLlm(server.address) as llm, pytest.raises(errors.AuthError):
            llm.model_info()
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"], timeout_s=SOON) as llm:
            with pytest.raises(errors.UnavailableError) as caught:
                llm.model_info()
            assert caught.value.reason == "LOADING"
    finally:
        server.stop()


def test_tokens_change_while_the_server_runs(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice")
    with running(tokens_file=file.path) as server:
        old = file.bearer_tokens["alice"]
        new = file.add("alice")
        with RemoteTransparentLlm(server.address, token=old) as before:
            before.run_tokens([[1, 2, 3]])
            with RemoteTransparentLlm(server.address, token=new) as after:
                wait_until(lambda: is_let_in(after))
                assert after.server_info().stored_runs == 1  # the same owner's
            file.remove(old)
            wait_until(lambda: not is_let_in(before))


def is_let_in(llm: RemoteTransparentLlm) -> bool:
    try:
        llm.model_info()
    except errors.AuthError:
        return False
    return True


def test_who_is_refused_holds_no_thread(file: BearerTokenFile) -> None:
    """They begin calls and never send a request. Else as many as there are threads would end all service."""
    with running(tokens_file=file.path, max_streams=1, spare_threads=1, queue_length=1) as server:
        with grpc.insecure_channel(server.address) as channel:
            never, calls = threading.Event(), []
            for path in [f"/{SERVICE}/Run", f"/{SERVICE}/Logits", REFLECTION] * 2:
                calls.append(channel.stream_stream(path)(silence(never)))
            calls += [channel.stream_stream("/grpc.health.v1.Health/Check")(silence(never)) for _ in range(3)]
            calls += [channel.stream_stream("/grpc.health.v1.Health/Watch")(silence(never)) for _ in range(3)]
            try:
                for call in calls[:6]:
                    code, _, message = refusal(call)
                    assert (code, message) == (grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)
                with RemoteTransparentLlm(server.address, token=file.bearer_tokens["bob"], timeout_s=SOON) as llm:
                    llm.run_tokens([[1, 2]])
            finally:
                for call in calls:
                    call.cancel()
                never.set()


def silence(until: threading.Event) -> Iterator[bytes]:
    """Requests that never come."""
    until.wait(2 * SOON)
    yield from ()


def test_who_watches_the_health_holds_no_thread() -> None:
    with (
        running(max_streams=1, spare_threads=1, queue_length=1) as server,
        grpc.insecure_channel(server.address) as channel,
    ):
        watch = health_pb2_grpc.HealthStub(channel).Watch
        watches = [watch(health_pb2.HealthCheckRequest(service="")) for _ in range(5)]
        assert [next(each).status for each in watches] == [health_pb2.HealthCheckResponse.SERVING] * 5
        with RemoteTransparentLlm(server.address, timeout_s=SOON) as llm:
            llm.run_tokens([[1, 2]])
        for each in watches:
            each.cancel()


def test_without_tokens_nobody_is_asked() -> None:
    with running() as server, RemoteTransparentLlm(server.address, token="for a proxy") as llm:
        llm.run_tokens([[1, 2]])
        assert llm.batch_size() == 1


def is_logged(caplog: pytest.LogCaptureFixture, beginning: str, end: str) -> bool:
    """Whether the access log has such a line, among those of other tests' calls perhaps that end only now."""
    lines = [record.getMessage() for record in caplog.records if "access_log" in record.name]
    return any(line.startswith(beginning) and line.endswith(end) for line in lines)


def test_the_log_names_the_owner(file: BearerTokenFile, server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "transparent_llm_server"):
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["bob"]) as llm:
            llm.run_tokens([[1, 2]])
        with RemoteTransparentLlm(server.address) as llm, pytest.raises(errors.AuthError):
            llm.model_info()
        wait_until(lambda: is_logged(caplog, "Run OK ", " ms of bob"))
        wait_until(lambda: is_logged(caplog, "ModelInfo UNAUTHENTICATED ", " ms"))


@pytest.mark.parametrize("line", ["alice no-digest", None], ids=["malformed", "missing"])
def test_a_server_does_not_start_with_a_file_that_says_nothing(line: str | None, tmp_path: Path) -> None:
    if line is not None:
        (tmp_path / "tokens").write_text(line)
    with pytest.raises(errors.InvalidRequestError, match=str(tmp_path / "tokens")):
        Server(ServerConfig(tokens_file=tmp_path / "tokens"))
