"""Another model under the same name: what is read of a model alone is that of the run, or an error, never a mix."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.reference import HuggingFaceReference
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import InternalError, NotFoundError
from transparent_llm.testing import serve_in_process
from transparent_llm_server.app import Server

ROWS = [[1, 2, 3], [4, 5]]
OTHER = "f" * 64


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as started:
        yield started


def replace(server: Server) -> None:
    """The server now serves another one under the name."""
    (only,) = server._registry
    only.description = dataclasses.replace(only.description, digest=OTHER)


READS: list[Callable[[RemoteTransparentLlm], object]] = [
    lambda llm: llm.unembed(torch.ones(64), normalize=True),
    lambda llm: llm.neuron_output(0, 1),
    lambda llm: llm.tokens_to_strings(torch.tensor([1, 2])),
    lambda llm: llm.copying_scores(),
]


@pytest.mark.parametrize("read", READS)
def test_what_belongs_to_a_model_alone_is_that_of_the_run(
    server: Server, read: Callable[[RemoteTransparentLlm], object]
) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=30, cache_bytes=0, weights_bytes=0) as llm:
        llm.run_tokens(ROWS)
        read(llm)
        replace(server)
        with pytest.raises(NotFoundError, match="a different model is now served under this name") as told:
            read(llm)
        assert told.value.reason == "MODEL_CHANGED"
        assert told.value.metadata["is"] == OTHER
        llm.run_tokens(ROWS)
        read(llm)


@pytest.mark.parametrize("read", READS)
def test_before_any_run_whichever_model_is_served_will_do(
    server: Server, read: Callable[[RemoteTransparentLlm], object]
) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        read(llm)
        replace(server)
        read(llm)


def test_circuits_that_are_kept_are_of_the_model_that_is_asked() -> None:
    watcher = Watcher()
    with running(watcher) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        for _ in range(2):
            llm.copying_scores()
        assert watcher.names.count("CopyingScores") == 1
        replace(server)
        for _ in range(2):
            llm.copying_scores()  # before any run: of the new model
        assert [request.model_digest for request in watcher.requests][1:] == [OTHER]
        assert watcher.names.count("CopyingScores") == 2


def test_circuits_of_a_run_whose_model_is_gone_are_those_that_are_kept_or_an_error(server: Server) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)
        kept = llm.copying_scores().scores
        replace(server)
        assert torch.equal(llm.copying_scores().scores, kept)  # of the model that ran
        with pytest.raises(NotFoundError, match="a different model is now served under this name"):
            llm.head_weights(0, 0)


def test_a_kept_run_of_the_model_before_is_no_run_of_the_one_after(server: Server) -> None:
    with RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)
        first = llm.run_id()
        replace(server)
        llm.run_tokens(ROWS)
        assert llm.run_id() != first
        assert llm._runs.current().result.model_digest == OTHER


class SharesItsRun(HuggingFaceReference):
    """An implementation whose copies write into each other: what it keeps of a run lies in one place for all."""

    def copy(self) -> SharesItsRun:
        return self


def test_an_implementation_whose_copies_share_their_run_is_found_out() -> None:
    shared = SharesItsRun(build_model(FAMILIES["gpt2"]()), build_tokenizer())
    with serve_in_process(shared, cache_bytes=0) as first, RemoteTransparentLlm(first.server.address) as second:
        first.run_tokens([[1, 2, 3]])
        first.residual_out(1)
        second.run_tokens([[4, 5, 6]])
        second.residual_out(1)
        with pytest.raises(InternalError):
            first.residual_out(1)


def test_copies_with_runs_of_their_own_are_served() -> None:
    llm = HuggingFaceReference(build_model(FAMILIES["gpt2"]()), build_tokenizer())
    with serve_in_process(llm, cache_bytes=0) as first, RemoteTransparentLlm(first.server.address) as second:
        wanted = tiny().copy()
        for client, rows in ((first, [[1, 2, 3]]), (second, [[4, 5, 6]])):
            client.run_tokens(rows)
        wanted.run_tokens([[1, 2, 3]])
        assert (first.residual_out(1) - wanted.residual_out(1)).abs().max().item() < 1e-5
