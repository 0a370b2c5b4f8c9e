"""A run that the server forgot is made again, unless the user does not want that."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import pytest
import torch

from support.servers.servers import Continuation, Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm, errors
from transparent_llm.client.reruns import MOST_RERUNS


def tiny_residual_in() -> torch.Tensor:
    local = tiny().copy()
    local.run_tokens([[1, 2, 3]])
    return local.residual_in(1)


def test_a_released_run_is_made_again_and_gives_the_same(caplog: pytest.LogCaptureFixture) -> None:
    watcher = Watcher()
    with served(watcher) as llm:
        llm.run_tokens([[1, 2, 3]])
        llm.release()
        with caplog.at_level(logging.DEBUG, "transparent_llm"):
            assert torch.equal(llm.residual_in(1), tiny_residual_in())
        assert "running its input again" in caplog.text
        assert llm.server_info().stored_runs == 1
    assert watcher.names == ["Run", "ReleaseRun", "ResidualIn", "Run", "ResidualIn", "ServerInfo"]


def test_without_rerun_the_loss_is_told() -> None:
    with running() as server, RemoteTransparentLlm(server.address, rerun=False) as llm:
        llm.run_tokens([[1, 2, 3]])
        llm.release()
        with pytest.raises(errors.NotFoundError) as caught:
            llm.residual_out(1)
        run_id = caught.value.metadata["run_id"]
        assert caught.value.reason == "RUN_NOT_FOUND"
        assert str(caught.value) == (
            f"run '{run_id}' was not found: never made, evicted, expired or released; send Run again"
        )
        assert isinstance(caught.value, LookupError)


class Forgetful(grpc.ServerInterceptor):
    """The server loses its runs in front of so many reads."""

    def __init__(self, times: int) -> None:
        self.left, self.reads = times, 0
        self.forget = lambda: None

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        if str(details.method).endswith("/ResidualIn"):
            self.reads += 1
            if self.left:
                self.left -= 1
                self.forget()
        return continuation(details)


@contextmanager
def forgetting(times: int) -> Iterator[tuple[RemoteTransparentLlm, Forgetful]]:
    forgetful = Forgetful(times)
    with running(forgetful) as server, RemoteTransparentLlm(server.address) as llm:
        forgetful.forget = lambda: server._runs.release(llm.run_id())
        llm.run_tokens([[1, 2, 3]])
        yield llm, forgetful


def test_a_run_that_is_lost_several_times_is_made_again_each_time() -> None:
    """As when replicas come and go behind a proxy."""
    with forgetting(MOST_RERUNS) as (llm, forgetful):
        assert torch.equal(llm.residual_in(1), tiny_residual_in())
        assert forgetful.reads == MOST_RERUNS + 1


def test_a_server_that_always_forgets_is_not_asked_for_ever() -> None:
    with forgetting(100) as (llm, forgetful):
        with pytest.raises(errors.NotFoundError) as caught:
            llm.residual_in(1)
        assert caught.value.reason == "RUN_NOT_FOUND"
        assert forgetful.reads == MOST_RERUNS + 1


def test_a_run_is_not_made_again_on_another_model() -> None:
    """The server was restarted with other weights under the same name."""
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens([[1, 2, 3]])
        llm.release()
        (only,) = server._registry
        only.description = dataclasses.replace(only.description, digest="f" * 64)
        with pytest.raises(errors.NotFoundError, match="now serves another model under this name") as caught:
            llm.residual_out(1)
        assert caught.value.reason == "MODEL_CHANGED"
        assert caught.value.metadata["is"] == "f" * 64
        llm.run_tokens([[1, 2, 3]])
        assert llm.residual_out(1).shape == (1, 3, 64)


def test_an_evicted_run_is_made_again() -> None:
    probe = tiny().copy()
    probe.run_tokens([[1, 2, 3]])
    with served(run_store_bytes=int(probe.values().nbytes * 1.5)) as llm:
        llm.run_tokens([[1, 2, 3]])
        before, other = llm.logits(), llm.copy()
        other.run_tokens([[4, 5, 6]])
        assert llm.server_info().stored_runs == 1
        assert torch.equal(llm.logits(), before)
        assert not torch.equal(other.logits(), before)


def test_a_run_larger_than_the_store_is_refused_with_both_numbers() -> None:
    with served(run_store_bytes=1000) as llm, pytest.raises(errors.TooLargeError) as caught:
        llm.run_tokens([[1, 2, 3]])
    assert caught.value.reason == "TOO_LARGE"
    assert caught.value.metadata["allowed"] == "1000"
    assert int(caught.value.metadata["needed"]) > 1000


def test_the_same_input_is_stored_once_and_named_the_same() -> None:
    with served() as llm:
        llm.run_tokens([[1, 2, 3]])
        other = llm.copy()
        other.run_tokens([[1, 2, 3]])
        assert llm.server_info().stored_runs == 1
        other.run_tokens([[1, 2, 4]])
        assert llm.server_info().stored_runs == 2


def test_text_and_its_tokens_name_the_same_run() -> None:
    with served() as llm:
        llm.run(["The river"])
        ids = llm.tokens().tolist()
        llm.run_tokens(ids)
        assert llm.server_info().stored_runs == 1
