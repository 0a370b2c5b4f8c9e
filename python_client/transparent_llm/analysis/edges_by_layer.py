"""The edges of a contribution graph one layer after another, as a loop takes them."""

from __future__ import annotations

from collections.abc import Generator

from transparent_llm.analysis.contributions import ContributionEdges, checked_threshold
from transparent_llm.analysis.distances import checked_norm
from transparent_llm.analysis.reading import read_each
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm


def contribution_edges_by_layer(
    llm: TransparentLlm, batch_i: int = 0, threshold: float = 0.04, renormalize: bool = True, norm: str = "l1"
) -> Generator[ContributionEdges, None, None]:
    """The edges of `contribution_graph` from the first layer on, without padding, each layer's when they are final.

    A server computes the next layers meanwhile, and ends when the loop is left or the iterator is closed. All are of
    the run that is current at the call. Arguments and errors are those of `contribution_edges`; `of_layers` of
    `ContributionGraph` puts all of them together.
    """
    row = Row.of(llm, batch_i)
    return edges_by_layer(llm, row, llm.model_info().n_layers, (threshold, renormalize, norm))


def edges_by_layer(
    llm: TransparentLlm, row: Row, n_layers: int, how: tuple[float, bool, str]
) -> Generator[ContributionEdges, None, None]:
    """The same of a row and a model that are known; `how` is threshold, renormalize and norm."""
    threshold, renormalize, norm = how
    arguments = (checked_threshold(threshold), renormalize, checked_norm(norm))
    reads = [("contribution_edges", row.index, layer, *arguments) for layer in range(n_layers)]
    return (_of_tokens(edges, row.n_tokens) for edges in read_each(llm, reads))


def _of_tokens(edges: ContributionEdges, n: int) -> ContributionEdges:
    return ContributionEdges(edges.attention[:n, :n], *(part[:n] for part in edges[1:]))
