"""Owners and connections in turn, and quotas of owners, over the wire."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support.servers.engines import held
from support.servers.owners import BearerTokenFile
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm_server.app import Server
from transparent_llm_server.events import Call
from transparent_llm_server.telemetry.access_log import AccessLog

ROWS = [[1, 2, 3], [4, 5]]
POSITIONS = 6


@pytest.fixture
def file(tmp_path: Path) -> BearerTokenFile:
    return BearerTokenFile(tmp_path / "tokens", "alice", "bob")


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """Calls as the access log has them."""
    calls: list[Call] = []
    log = AccessLog.ended

    def ended(self: AccessLog, call: Call) -> None:
        calls.append(call)
        log(self, call)

    monkeypatch.setattr(AccessLog, "ended", ended)
    return iter([calls])


def flows_waiting(server: Server, *clients: RemoteTransparentLlm) -> list[str]:
    """With whom the runs of these clients, one of each, take turns."""
    with ThreadPoolExecutor(len(clients)) as threads, held(server._engine):
        waiting = [threads.submit(llm.run_tokens, [[i + 1]]) for i, llm in enumerate(clients)]
        wait_until(lambda: server._engine.queued_runs == len(clients))
        flows = list(server._engine._runs._jobs)
    for each in waiting:
        each.result()
    return flows


def test_without_owners_connections_take_turns() -> None:
    with running() as server:
        one = RemoteTransparentLlm(server.address)
        other = RemoteTransparentLlm(server.address, keepalive_s=25)  # equal ones of a process share a connection
        with one, other:
            flows = flows_waiting(server, one, other, one.copy())
    assert len(flows) == 2
    assert all("127.0.0.1" in flow or "::1" in flow for flow in flows)


def test_owners_take_turns_whatever_the_number_of_their_connections(file: BearerTokenFile) -> None:
    with running(tokens_file=file.path) as server:
        owners = ("alice", "alice", "bob")
        clients = [RemoteTransparentLlm(server.address, token=file.bearer_tokens[owner]) for owner in owners]
        assert sorted(flows_waiting(server, *clients)) == ["alice", "bob"]
        for llm in clients:
            llm.close()


def test_an_owner_whose_queue_is_full_keeps_no_other_out(file: BearerTokenFile) -> None:
    with running(tokens_file=file.path, queue_length=2, busy_retry_s=60.0) as server:
        tokens = file.bearer_tokens
        alice = RemoteTransparentLlm(server.address, token=tokens["alice"], timeout_s=30.0)
        bob = RemoteTransparentLlm(server.address, token=tokens["bob"])
        with alice, bob, ThreadPoolExecutor(4) as threads:
            with held(server._engine):
                hers = [threads.submit(alice.copy().run_tokens, [[i]]) for i in (1, 2)]
                wait_until(lambda: server._engine.queued_runs == 2)
                his = threads.submit(bob.run_tokens, [[3]])
                wait_until(lambda: any(each.done() for each in hers))
                with pytest.raises(errors.BusyError, match="2 calls are already waiting for the model"):
                    alice.copy().run_tokens([[4]])
            his.result()
            (refused,) = (error for each in hers if (error := each.exception()) is not None)
    assert isinstance(refused, errors.BusyError)
    assert refused.reason == "BUSY"


def test_positions_over_the_quota_are_refused_and_runs_that_are_there_cost_nothing(file: BearerTokenFile) -> None:
    with running(tokens_file=file.path, owner_positions_per_minute=2 * POSITIONS) as server:
        alice, bob = (RemoteTransparentLlm(server.address, token=file.bearer_tokens[name]) for name in ("alice", "bob"))
        with alice, bob:
            for _ in range(5):
                alice.run_tokens(ROWS)
            alice.run_tokens([[7, 8, 9]])
            with pytest.raises(errors.BusyError) as refused:
                alice.run_tokens([[7], [8], [9], [10]])
            bob.run_tokens(ROWS)
            with pytest.raises(errors.TooLargeError) as never:
                bob.run_tokens([[1] * 13])
    assert refused.value.reason == "QUOTA_EXCEEDED"
    assert refused.value.metadata == {"quota": "positions_per_minute", "needed": "4", "used": "9", "allowed": "12"}
    assert refused.value.retry_after_s is not None
    assert 50 < refused.value.retry_after_s <= 61
    assert never.value.reason == "TOO_LONG"


def test_bytes_over_the_quota_are_refused_before_they_are_computed(file: BearerTokenFile) -> None:
    with (
        running(tokens_file=file.path) as server,
        RemoteTransparentLlm(server.address, token=file.bearer_tokens["bob"]) as llm,
    ):
        llm.run_tokens(ROWS)
        nbytes = llm.residual_in(0).nbytes
    with running(tokens_file=file.path, owner_bytes_per_hour=3 * nbytes + 1) as server:
        for shared_memory in (True, False):
            token = file.bearer_tokens["alice" if shared_memory else "bob"]
            with RemoteTransparentLlm(server.address, token=token, cache_bytes=0, shared_memory=shared_memory) as llm:
                llm.run_tokens(ROWS)
                for _ in range(3):
                    llm.residual_in(0)
                with pytest.raises(errors.BusyError) as refused:
                    llm.residual_in(0)
                assert refused.value.reason == "QUOTA_EXCEEDED"
                assert refused.value.metadata["quota"] == "bytes_per_hour"
                assert refused.value.metadata["used"] == str(3 * nbytes)
                assert llm.batch_size() == 2


def test_a_run_that_nobody_waits_for_any_more_is_not_charged(file: BearerTokenFile) -> None:
    with running(tokens_file=file.path, owner_positions_per_minute=100) as server:
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"], timeout_s=0.5) as llm:
            llm.model_info()
            with held(server._engine):
                with pytest.raises(errors.DeadlineError):
                    llm.run_tokens(ROWS)
                wait_until(lambda: not server._quotas.taken())


def test_the_access_log_tells_what_a_call_took(file: BearerTokenFile, ended: Iterator[list[Call]]) -> None:
    (calls,) = ended
    with running(tokens_file=file.path) as server:
        with RemoteTransparentLlm(server.address, token=file.bearer_tokens["alice"], cache_bytes=0) as llm:
            for _ in range(2):
                llm.run_tokens(ROWS)
            nbytes = llm.residual_in(0).nbytes
        wait_until(lambda: len(calls) >= 3)
    runs = [call.positions for call in calls if call.method == "Run"]
    reads = [call.value_bytes for call in calls if call.method == "ResidualIn"]
    assert (runs, reads) == ([POSITIONS, 0], [nbytes])
