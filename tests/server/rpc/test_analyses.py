"""Analyses among other calls: how long they are is known before, they let others in, and end when nobody waits."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, cast

import grpc
import pytest
import torch

from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from support.servers.stub import stub
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis import interrupt
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.contract import ModelInfo
from transparent_llm.errors import TooLargeError
from transparent_llm.wire._gen import analysis_pb2
from transparent_llm.wire.methods import METHODS
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc import analyses
from transparent_llm_server.rpc.work import Sizes, work_of

ROWS = [[1, 2, 3, 4, 5, 6], [5, 6]]
EDGES = ("contribution_edges", 0, 0, 0.04, False, "l1")
SEVEN_BILLION = ModelInfo("", 7_000_000_000, n_layers=32, n_heads=32, d_model=4096, d_vocab=32_000)


# How much work


def lens(n_layers: int) -> list[tuple[Any, ...]]:
    return [("layer_lens", 0, layer, None, "out", "out", "own", (), 10, 0, (), True) for layer in range(n_layers)]


def test_every_analysis_has_its_work() -> None:
    sizes = Sizes(SEVEN_BILLION, 10)
    given = {"positions": (), "targets": (), "token_ids": (), "with_kl": False}
    for name in ANALYSES:
        arguments = [given.get(argument, 0) for argument in METHODS[name].argument_names]
        assert work_of(name, arguments, sizes) > 0


def test_work_is_that_of_the_products() -> None:
    """Counted by hand: a distance of d_model for each target, source and head; each vector by each token's."""
    sizes = Sizes(SEVEN_BILLION, 1000)
    distances = 1000 * 1000 * 32 * 4096
    assert distances < work_of(EDGES[0], EDGES[1:], sizes) < 1.5 * distances
    newest = work_of("contribution_edges_to", (0, 0, (-1,), *EDGES[3:]), sizes)
    assert newest < work_of(EDGES[0], EDGES[1:], sizes) / 4  # of which the values of all sources are the most
    name, *arguments = lens(1)[0]
    products = 1000 * 32_000 * 4096 * 2
    assert products < work_of(name, arguments, sizes) < 1.01 * products
    arguments[6] = (3, 4)
    assert work_of(name, arguments, sizes) == work_of(name, lens(1)[0][1:], Sizes(SEVEN_BILLION, 2))


@pytest.mark.parametrize("d_vocab", [32_000, 128_256])
def test_the_default_allows_a_graph_and_a_lens_of_1000_tokens_of_7_billion_parameters(d_vocab: int) -> None:
    sizes = Sizes(dataclasses.replace(SEVEN_BILLION, d_vocab=d_vocab), 1000)
    for reads in ([EDGES] * 32, lens(33)):
        work = sum(work_of(name, arguments, sizes) for name, *arguments in reads)
        assert 10**12 < work < ServerConfig().max_read_work


def work_here(name: str, *arguments: Any) -> int:
    return work_of(name, arguments, Sizes(tiny().model_info(), len(ROWS[0])))


def test_too_much_work_is_refused_with_the_numbers_and_just_enough_is_done() -> None:
    needed = 2 * work_here(*EDGES) + work_here(*lens(1)[0])
    reads = cast("Any", [EDGES, ("contribution_edges", 0, 1, *EDGES[3:]), lens(1)[0]])
    with running(max_read_work=needed - 1) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        with pytest.raises(TooLargeError, match=r"multiply-adds.*fewer layers, positions or rows") as refused:
            llm.fetch(reads)
        assert refused.value.reason == "TOO_LARGE"
        assert refused.value.metadata == {"needed": str(needed), "allowed": str(needed - 1)}
        assert llm.server_info().limits.max_read_work == needed - 1
        assert len(llm.fetch(reads[:2])) == 2
    with running(max_read_work=needed) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        assert len(llm.fetch(reads)) == 3


def test_a_single_read_is_refused_too_and_reads_of_stored_values_are_no_work() -> None:
    with running(max_read_work=work_here(*EDGES) - 1) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        request = analysis_pb2.ContributionEdgesRequest(run_id=llm.run_id(), batch_i=0, layer=0)
        with grpc.insecure_channel(server.address) as channel:
            with pytest.raises(grpc.RpcError, match="multiply-adds"):
                list(stub(channel).ContributionEdges(request, timeout=SOON))
            request.batch_i = 1  # which is shorter
            assert list(stub(channel).ContributionEdges(request, timeout=SOON))
    with running(max_read_work=0) as server, RemoteTransparentLlm(server.address) as llm:
        llm.run_tokens(ROWS)
        assert llm.decomposed_attn(0, 0).shape[0] == len(ROWS[0])


# Among others


class Pieces:
    """Counts the pieces of `contribution_edges` on the server, and does something at the first."""

    def __init__(self, at_first: Callable[[Callable[[], None]], None]) -> None:
        self._at_first = at_first
        self.asked, self.ended = 0, threading.Event()
        self.error: BaseException | None = None
        self.begun = threading.Event()

    def __call__(self, *arguments: Any) -> Any:
        server_asks = interrupt._check.get()
        assert server_asks is not None

        def ask() -> None:
            self.asked += 1
            if self.asked == 1:
                self.begun.set()
                self._at_first(server_asks)
            server_asks()

        try:
            with interrupt.checking(ask):
                return _EDGES(*arguments)
        except BaseException as error:
            self.error = error
            raise
        finally:
            self.ended.set()


_EDGES = ANALYSES["contribution_edges"]


@contextmanager
def observed(monkeypatch: pytest.MonkeyPatch, at_first: Callable[[Callable[[], None]], None]) -> Iterator[Pieces]:
    pieces = Pieces(at_first)
    monkeypatch.setitem(cast("dict[str, Any]", ANALYSES), "contribution_edges", pieces)
    monkeypatch.setattr(analyses, "LONG", 0)  # the tiny model's are all short
    yield pieces


@pytest.mark.parametrize("leaves", ["cancel", "deadline"])
def test_an_analysis_ends_within_a_piece_when_its_client_leaves(monkeypatch: pytest.MonkeyPatch, leaves: str) -> None:
    """At its first piece it asks until it is told to end, and comes to no second one."""

    def until_told(server_asks: Callable[[], None]) -> None:
        def go_on() -> bool:
            server_asks()
            return False

        wait_until(go_on)

    with (
        observed(monkeypatch, until_told) as pieces,
        running() as server,
        RemoteTransparentLlm(server.address) as llm,
        grpc.insecure_channel(server.address) as channel,
    ):
        llm.run_tokens(ROWS)
        request = analysis_pb2.ContributionEdgesRequest(run_id=llm.run_id(), batch_i=0, layer=0)
        call = stub(channel).ContributionEdges(request, timeout=SOON if leaves == "cancel" else 2)
        assert pieces.begun.wait(SOON)
        if leaves == "cancel":
            call.cancel()
        assert pieces.ended.wait(SOON)
        assert pieces.asked == 1
        assert type(pieces.error).__name__ in ("CancelledError", "DeadlineError")
        assert server._engine.submit_read(threading.get_ident).result(SOON) == server._engine._thread.ident


def test_short_reads_of_others_come_in_between_two_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """The analysis comes to its second piece only when another client has its answers, and is what it would be."""
    answered = threading.Event()

    def until_answered(server_asks: Callable[[], None]) -> None:
        def is_answered() -> bool:
            server_asks()
            return answered.is_set()

        wait_until(is_answered)

    with (
        running() as server,
        RemoteTransparentLlm(server.address, cache_bytes=0) as one,
        RemoteTransparentLlm(server.address) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        for llm in (one, other):
            llm.run_tokens(ROWS)
        wanted = one.fetch(cast("Any", [EDGES]))[0]
        vector = torch.linspace(-1, 1, one.model_info().d_model)
        with observed(monkeypatch, until_answered) as pieces:
            waiting = pool.submit(one.fetch, cast("Any", [EDGES]))
            assert pieces.begun.wait(SOON)
            assert other.unembed(vector, True).shape == (one.model_info().d_vocab,)
            assert other.decomposed_attn(1, 1).shape[0] == len(ROWS[0])
            assert (pieces.asked, pieces.ended.is_set()) == (1, False)
            answered.set()
            found = waiting.result(SOON)[0]
        assert pieces.asked > 1
        assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
