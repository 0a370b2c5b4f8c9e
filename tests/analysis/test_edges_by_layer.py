"""The layers of a graph are handed on while later ones are computed, and no more are when the loop is left."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, cast

import pytest
import torch

from support.models.batch import LENGTHS, ROWS
from support.servers.engines import SOON
from support.servers.polling import wait_until
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis import interrupt
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.contribution_graph import ContributionGraph
from transparent_llm.analysis.methods import Analyses
from transparent_llm.errors import InvalidRequestError, NotRunError

FAMILY = "gemma3"  # of three layers
_EDGES = ANALYSES["contribution_edges"]


@contextmanager
def made(kind: str) -> Iterator[Analyses]:
    """Of this process, or of a server in it."""
    local = tiny(FAMILY).copy()
    if kind == "local":
        yield local
        return
    with running(serving={FAMILY: local}) as server, RemoteTransparentLlm(server.address) as llm:
        yield llm


def watched(monkeypatch: pytest.MonkeyPatch, before: Callable[[int], object]) -> list[int]:
    """The layers that are computed, each told of before."""
    begun: list[int] = []

    @wraps(_EDGES)
    def edges(llm: Any, batch_i: int, layer: int, *how: Any) -> Any:
        begun.append(layer)
        before(layer)
        return _EDGES(llm, batch_i, layer, *how)

    monkeypatch.setitem(cast("dict[str, Any]", ANALYSES), "contribution_edges", edges)
    return begun


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_the_first_layer_is_here_before_the_last_is_computed(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first_is_here = threading.Event()
    with made(kind) as llm:
        llm.run_tokens(ROWS)
        wanted = llm.contribution_graph(1)
        llm.run_tokens(ROWS[::-1])  # so that nothing of it is kept
        llm.run_tokens(ROWS)
        begun = watched(monkeypatch, lambda layer: layer == 0 or first_is_here.wait(SOON) or pytest.fail("all at once"))
        coming = llm.contribution_edges_by_layer(1)
        llm.run_tokens(ROWS[:1])  # the layers are of the run before
        layers = [next(coming)]
        assert 2 not in begun
        first_is_here.set()
        layers += coming
    assert begun == [0, 1, 2]
    assert layers[0].attention.shape == (LENGTHS[1], LENGTHS[1])
    graph = ContributionGraph.of_layers(layers, wanted.tokens)
    assert torch.equal(graph.attention, wanted.attention)
    assert torch.equal(graph.ffn_residual, wanted.ffn_residual)


def test_a_loop_that_is_left_ends_the_work_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    is_next, ended = threading.Event(), threading.Event()

    def until_told(layer: int) -> None:
        def is_told() -> bool:
            interrupt.check()
            return False

        if layer:
            is_next.set()
            try:
                wait_until(is_told)
            finally:
                ended.set()

    with made("remote") as llm:
        llm.run_tokens(ROWS)
        begun = watched(monkeypatch, until_told)
        for layer in llm.contribution_edges_by_layer():
            assert layer.ffn.shape == (LENGTHS[0],)
            assert is_next.wait(SOON)
            break
        assert ended.wait(SOON / 2), "only its own patience ends it"
        assert llm.batch_size() == len(ROWS)
        assert llm.residual_out(2).shape[0] == len(ROWS), "the server is at work on nothing else"
    assert begun == [0, 1]


def test_a_local_loop_computes_what_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    with made("local") as llm:
        llm.run_tokens(ROWS)
        begun = watched(monkeypatch, lambda _: None)
        for _ in llm.contribution_edges_by_layer():
            break
    assert begun == [0]


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_what_cannot_be_is_refused_at_once(kind: str) -> None:
    with made(kind) as llm:
        with pytest.raises(NotRunError):
            llm.contribution_edges_by_layer()
        llm.run_tokens(ROWS)
        with pytest.raises(InvalidRequestError, match="norm must be"):
            llm.contribution_edges_by_layer(norm="l3")


@pytest.mark.parametrize("kind", ["local", "remote"])
def test_a_graph_tells_how_far_it_is_and_leaves_what_reaches_no_start(kind: str) -> None:
    told: list[tuple[int, int | None]] = []
    with made(kind) as llm:
        llm.run_tokens(ROWS)
        graph = llm.contribution_graph(0, 0.2, starts=[3, -1], progress=lambda *how_far: told.append(how_far))
        assert graph.edges() == llm.contribution_graph(0, 0.2).paths([3, -1]).edges()
    assert told == [(1, 3), (2, 3), (3, 3)]
