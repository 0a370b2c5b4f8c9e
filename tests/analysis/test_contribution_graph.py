"""The graph beside one that is built edge by edge in networkx, from the definition; its paths beside networkx's own."""

from __future__ import annotations

import sys
from functools import cache

import networkx
import pytest
import torch

from support.models import contributions as reference
from support.models.batch import LENGTHS, ROWS
from support.servers.servers import tiny
from transparent_llm.analysis.contribution_graph import ContributionGraph, contribution_graph
from transparent_llm.analysis.contributions import ContributionEdges, contribution_edges
from transparent_llm.analysis.edge import Edge
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError

FAMILIES = ["gpt2", "gemma3", "mixtral", "gpt_neox_parallel", "llama_gqa"]
THRESHOLD = 0.04
CASES = [(family, norm) for family in FAMILIES for norm in ("l1", "l2")]
MOST = 1e-5


@cache
def run_of(family: str) -> TransparentLlm:
    llm = tiny(family).copy()
    llm.run_tokens(ROWS)
    return llm


def wanted_graph(family: str, row: int, threshold: float, norm: str, above: float) -> networkx.DiGraph:
    """Edges above a weight alone."""
    whole = reference.Row(run_of(family), row, LENGTHS[row]).graph(threshold, norm)
    kept = [(a, b) for a, b, weight in whole.edges(data="weight") if weight > above]
    return whole.edge_subgraph(kept).copy()


def assert_same(ours: networkx.DiGraph, theirs: networkx.DiGraph) -> None:
    assert set(ours.edges) == set(theirs.edges)
    assert set(ours.nodes) == set(theirs.nodes)
    for a, b, weight in theirs.edges(data="weight"):
        assert abs(ours.edges[a, b]["weight"] - weight) <= MOST


def reached_of(graph: networkx.DiGraph, start: str) -> networkx.DiGraph:
    """Edges of a walk from a node against their direction."""
    if start not in graph:
        return networkx.DiGraph()
    return graph.edge_subgraph([(b, a) for a, b in networkx.edge_dfs(graph.reverse(), start)])


def last_of(graph: ContributionGraph, pos: int) -> str:
    return f"I{graph.n_layers - 1}_{pos}"


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize(("family", "norm"), CASES)
def test_renormalized_edges_and_paths_are_as_defined(family: str, norm: str, row: int) -> None:
    graph = contribution_graph(run_of(family), row, THRESHOLD, norm=norm)
    wanted = wanted_graph(family, row, THRESHOLD, norm, 0.0)
    assert_same(graph.to_networkx(), wanted)
    for start in range(LENGTHS[row]):
        assert_same(graph.paths(start).to_networkx(), reached_of(wanted, last_of(graph, start)))


@pytest.mark.parametrize("row", range(3))
@pytest.mark.parametrize(("family", "norm"), CASES)
def test_otherwise_edges_count_whose_sum_over_heads_is_above(family: str, norm: str, row: int) -> None:
    graph = contribution_graph(run_of(family), row, THRESHOLD, renormalize=False, norm=norm)
    wanted = wanted_graph(family, row, 0.0, norm, THRESHOLD)
    assert_same(graph.to_networkx(), wanted)
    for start in range(LENGTHS[row]):
        assert_same(graph.paths(start).to_networkx(), reached_of(wanted, last_of(graph, start)))


def test_the_two_ways_give_different_graphs() -> None:
    """Many heads that give a little each make an edge in one of them."""
    ways = [contribution_graph(run_of("gpt2"), 0, 0.1, renormalize=way) for way in (True, False)]
    first, second = ({(edge.source, edge.target) for edge in graph.edges()} for graph in ways)
    assert first < second


@pytest.mark.parametrize("renormalize", [True, False])
def test_all_starts_at_once_are_each_start(renormalize: bool) -> None:
    graph = contribution_graph(run_of("gpt2"), 0, 0.2, renormalize)
    reached = graph.reachable()
    whole = graph.to_networkx()
    nodes = {"A": reached.after_attn, "M": reached.ffn, "I": reached.out}
    for start in range(LENGTHS[0]):
        name = last_of(graph, start)
        wanted = {name, *(networkx.ancestors(whole, name) if name in whole else ())}
        found = {f"X0_{pos}" for pos in reached.tokens[start].nonzero().flatten().tolist()}
        for letter, mask in nodes.items():
            found |= {f"{letter}{layer}_{pos}" for layer, pos in mask[start].nonzero().tolist()}
        assert found == wanted


def test_starts_count_from_the_end_and_in_the_order_asked() -> None:
    graph = contribution_graph(run_of("gpt2"), 1, 0.2)
    every, some = graph.reachable(), graph.reachable([-1, 0])
    for whole, part in zip(every, some, strict=True):
        assert torch.equal(part, whole[[LENGTHS[1] - 1, 0]])
    assert graph.reachable([]).tokens.shape == (0, LENGTHS[1])


def test_paths_to_several_starts_are_those_to_each() -> None:
    graph = contribution_graph(run_of("gpt2"), 0, 0.2)
    apart = [{(edge.source, edge.target) for edge in graph.paths(start).edges()} for start in (3, -1)]
    assert {(edge.source, edge.target) for edge in graph.paths([3, -1]).edges()} == apart[0] | apart[1]


def test_paths_from_an_earlier_layer_know_nothing_of_later_ones() -> None:
    graph = contribution_graph(run_of("gpt2"), 0, 0.01)
    wanted = reached_of(graph.to_networkx(), "I0_9")
    assert wanted.number_of_edges()
    assert_same(graph.paths(9, layer=0).to_networkx(), wanted)


def test_edges_name_their_nodes_and_self_attention_joins_the_residual() -> None:
    layer = ContributionEdges(
        torch.tensor([[0.5, 0.0], [0.25, 0.125]]),
        torch.tensor([0.5, 0.625]),
        torch.tensor([0.0, 0.75]),
        torch.tensor([1.0, 0.25]),
    )
    graph = ContributionGraph.of_layers([layer], ["a", "b"])
    assert graph.edges() == [
        Edge("X0_0", "A0_0", 1.0, "residual", 0, 0, 0),
        Edge("X0_0", "A0_1", 0.25, "attention", 0, 0, 1),
        Edge("X0_1", "A0_1", 0.75, "residual", 0, 1, 1),
        Edge("A0_1", "M0_1", 0.75, "ffn", 0, 1, 1),
        Edge("M0_1", "I0_1", 0.75, "ffn", 0, 1, 1),
        Edge("A0_0", "I0_0", 1.0, "ffn_residual", 0, 0, 0),
        Edge("A0_1", "I0_1", 0.25, "ffn_residual", 0, 1, 1),
    ]
    drawn = graph.to_networkx()
    assert drawn.nodes["X0_1"] == {"layer": -1, "pos": 1, "token": "b"}
    assert drawn.edges["X0_0", "A0_1"] == {"weight": 0.25, "kind": "attention", "layer": 0}
    assert repr(graph) == "<ContributionGraph of 1 layers, 2 tokens, renormalized above 0.04, l1>"


def test_padding_is_left_out() -> None:
    llm, n = run_of("gpt2"), LENGTHS[2]
    layers = [contribution_edges(llm, 2, layer, 0.04, True) for layer in range(2)]
    assert layers[0].ffn.shape == (LENGTHS[0],)
    graph = ContributionGraph.of_layers(layers, ["x"] * n)
    assert graph.attention.shape == (2, n, n)
    same = contribution_graph(llm, 2)
    assert torch.equal(graph.attention, same.attention)
    assert same.tokens == tuple(llm.tokens_to_strings(torch.tensor(ROWS[2])))


def test_a_graph_less_itself_is_nothing() -> None:
    graph = contribution_graph(run_of("gpt2"), 0)
    difference = graph.diff(graph)
    assert difference.edges() == []
    assert repr(difference) == f"<GraphDifference of 2 layers, {LENGTHS[0]} tokens>"


def test_a_difference_names_the_largest_change_first() -> None:
    llm = tiny("gpt2").copy()
    llm.run_tokens([[5, 6, 7, 8], [5, 6, 9, 8]])
    one, other = (contribution_graph(llm, row, 0.0) for row in range(2))
    difference = one.diff(other)
    before, after = ({(e.source, e.target): e.weight for e in graph.edges()} for graph in (other, one))
    changes = difference.edges()
    assert changes
    assert [abs(e.weight) for e in changes] == sorted((abs(e.weight) for e in changes), reverse=True)
    for edge in changes:
        pair = (edge.source, edge.target)
        assert abs(edge.weight - (after.get(pair, 0.0) - before.get(pair, 0.0))) <= 1e-6
    assert not any(e.target_pos < 2 and abs(e.weight) > MOST for e in changes), "what comes before is the same"
    assert (difference.tokens, difference.other_tokens) == (one.tokens, other.tokens)


def test_graphs_that_do_not_compare_are_refused() -> None:
    llm = run_of("gpt2")
    graph = contribution_graph(llm, 0)
    with pytest.raises(InvalidRequestError, match="agree in tokens: 16 here, 5 in the other"):
        graph.diff(contribution_graph(llm, 1))
    with pytest.raises(InvalidRequestError, match="agree in norm: l1 here, l2 in the other"):
        graph.diff(contribution_graph(llm, 0, norm="l2"))
    with pytest.raises(InvalidRequestError, match="agree in layers: 2 here, 3 in the other"):
        graph.diff(contribution_graph(run_of("gemma3"), 0))


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match="there are no layers"):
        ContributionGraph.of_layers([], ["a"])
    layer = contribution_edges(run_of("gpt2"), 0, 0)
    with pytest.raises(InvalidRequestError, match=r"a graph of 17 tokens needs .*: a layer has 16 positions"):
        ContributionGraph.of_layers([layer], ["a"] * 17)
    graph = contribution_graph(run_of("gpt2"), 0)
    with pytest.raises(IndexOutOfRangeError, match="start 16 is out of range"):
        graph.paths(16)
    with pytest.raises(IndexOutOfRangeError, match="layer 2 is out of range"):
        graph.reachable(layer=2)


def test_without_networkx_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    graph = contribution_graph(run_of("gpt2"), 2)
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(ImportError, match=r"to_networkx requires the \[graph\] extra"):
        graph.to_networkx()
