"""What can never be served is refused before anything is computed for it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import torch

from support.servers.engines import held
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import BusyError, TooLargeError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.status import from_rpc_error
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc import admission, intake

ROWS = [[1, 2, 3, 4], [5, 6]]
TOO_LATE_S = 3600.0
"""To come back in: no call has so much time, so that its client says at once what it was told."""


def test_a_run_that_the_store_can_never_hold_is_refused_before_it_waits_for_the_model() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        needed = llm.describe().run_bytes(2, 4)
    with running(run_store_bytes=needed - 1) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        with held(server._engine), pytest.raises(TooLargeError) as refused:
            llm.run_tokens(ROWS)
        assert refused.value.reason == "TOO_LARGE"
        assert refused.value.metadata == {"needed": str(needed), "allowed": str(needed - 1)}


def test_a_run_that_fills_the_store_exactly_is_served() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        needed = llm.describe().run_bytes(2, 4)
    with running(run_store_bytes=needed) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)
        assert llm.server_info().stored_run_bytes == needed


def test_the_budget_of_an_owner_counts_too() -> None:
    with running(run_bytes_per_owner=1000) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        with held(server._engine), pytest.raises(TooLargeError, match="stores 1000 of one owner"):
            llm.run_tokens(ROWS)


DENSE = 4 * 4 * 4 * 64 * 4
"""decomposed_attn of a row of ROWS: 4 targets, 4 sources, 4 heads of the tiny model, 64 coordinates, float32."""


@pytest.fixture(scope="module")
def narrow() -> Iterator[Server]:
    """It sends no dense decomposed_attn."""
    with running(max_read_bytes=DENSE - 1) as server:
        yield server


def stream(server: Server, rpc: str, request: Any) -> list[Any]:
    with grpc.insecure_channel(server.address) as channel:
        return list(getattr(stub(channel), rpc)(request, timeout=30))


def run_of(server: Server) -> str:
    with grpc.insecure_channel(server.address) as channel:
        request = requests.run(RunInput.of_tokens(ROWS), "")
        return str(stub(channel).Run(request, timeout=30).run_id)


def test_a_dense_read_of_too_many_bytes_is_refused_before_anything_is_computed(narrow: Server) -> None:
    request = service_pb2.DecomposedAttnRequest(run_id=run_of(narrow), batch_i=0, layer=0)
    with pytest.raises(grpc.RpcError) as caught:
        stream(narrow, "DecomposedAttn", request)
    refused = from_rpc_error(caught.value, narrow.address)
    assert isinstance(refused, TooLargeError)
    assert refused.metadata == {"needed": str(DENSE), "allowed": str(DENSE - 1)}
    assert "target 4, source 4, head 4, d_model 64" in refused.message
    assert "the factored encoding, slices" in refused.message


def test_its_factors_and_its_parts_are_sent(narrow: Server) -> None:
    request = service_pb2.DecomposedAttnRequest(run_id=run_of(narrow), batch_i=0, layer=0)
    request.options.encoding = tensor_pb2.ENCODING_FACTORED
    assert stream(narrow, "DecomposedAttn", request)
    request.options.encoding = tensor_pb2.ENCODING_DENSE
    request.options.dtype = tensor_pb2.DTYPE_BF16
    assert stream(narrow, "DecomposedAttn", request)


def test_all_of_a_fetch_counts_and_none_of_it_is_sent(narrow: Server) -> None:
    request = service_pb2.FetchRequest(run_id=run_of(narrow))
    one = 2 * 4 * 64 * 4  # residual_in: 2 rows, 4 positions
    for _ in range(DENSE // one + 1):
        request.items.add().residual_in.layer = 0
    with pytest.raises(grpc.RpcError) as caught:
        stream(narrow, "Fetch", request)
    refused = from_rpc_error(caught.value, narrow.address)
    assert (refused.reason, refused.metadata["needed"]) == ("TOO_LARGE", str(DENSE + one))
    del request.items[-2:]
    assert stream(narrow, "Fetch", request)


def test_the_limits_are_told(narrow: Server) -> None:
    with RemoteTransparentLlm(narrow.address) as llm:
        limits = llm.server_info().limits
    config = ServerConfig()
    assert limits.max_read_bytes == DENSE - 1
    assert limits.run_bytes_per_owner == limits.run_store_bytes == config.run_store_bytes
    assert (limits.max_streams, limits.max_streams_per_owner) == (config.max_streams, config.max_streams_per_owner)


def test_the_text_of_tokens_is_never_more_than_any_grpc_library_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        monkeypatch.setattr(admission, "_MOST_ANSWER_BYTES", 100)
        for call in (
            lambda: llm.tokens_to_strings(torch.ones(90).long()),
            lambda: llm.run_tokens([[1] * 60]),
            lambda: llm.to_tokens("?" * 60),
        ):
            with pytest.raises(
                TooLargeError, match=r"makes an answer of \d+ bytes, and one message has at most 100; send"
            ):
                call()
        assert len(llm.tokens_to_strings(torch.ones(5).long())) == 5


def test_too_much_text_of_tokens_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where most of it is padding; and `Tokenize` has the same bound."""
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        monkeypatch.setattr(admission, "_MOST_ANSWER_BYTES", 200)
        monkeypatch.setattr(intake, "_FEW_IDS", 10)  # of which nobody would need so much text
        with held(server._engine):  # a run that was put into the queue would wait
            for rows in ([[1] * 60], [[1], [1], [1] * 30]):
                with pytest.raises(TooLargeError, match=rf"text of these {len(rows) * len(rows[-1])} tokens"):
                    llm.run_tokens(rows)
            with pytest.raises(TooLargeError, match=r"makes an answer of \d+ bytes, and one message has at most 200"):
                llm.to_str_tokens("abcdefghij" * 6)
            assert server._engine.queued_runs == 0
        llm.run_tokens([[1] * 5])


def test_one_call_more_than_may_be_under_way_is_told_to_come_back() -> None:
    settings = {"max_streams": 2, "busy_retry_s": TOO_LATE_S}
    with running(**settings) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        with ThreadPoolExecutor(2) as threads, held(server._engine):
            waiting = [threads.submit(llm.copy().run_tokens, [[row]]) for row in (1, 2)]
            wait_until(lambda: server._engine.queued_runs == 2)
            with pytest.raises(BusyError) as caught:
                llm.model_info()
            refused = caught.value
            assert (refused.reason, refused.retry_after_s) == ("BUSY", TOO_LATE_S)
            assert refused.metadata == {"allowed": "2"}
            assert llm.is_serving()  # health is not held back
        for each in waiting:
            each.result()
        llm.run_tokens(ROWS)  # there is room again


def test_an_owner_leaves_room_for_the_others(tmp_path: Path) -> None:
    file = BearerTokenFile(tmp_path / "tokens", "alice", "bob")
    with running(tokens_file=file.path, max_streams_per_owner=1, busy_retry_s=TOO_LATE_S) as server:
        alice, bob = (RemoteTransparentLlm(server.address, token=token) for token in file.bearer_tokens.values())
        with alice, bob:
            with ThreadPoolExecutor(1) as threads, held(server._engine):
                waiting = threads.submit(alice.copy().run_tokens, ROWS)
                wait_until(lambda: server._engine.queued_runs == 1)
                with pytest.raises(BusyError, match="1 calls of this owner"):
                    alice.model_info()
                bob.model_info()
            waiting.result()
            alice.model_info()
