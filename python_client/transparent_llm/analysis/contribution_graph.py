"""The contribution graph of a row: what flowed from where to where, and which of it reaches a prediction."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float

from transparent_llm.analysis.contributions import ContributionEdges, checked_threshold
from transparent_llm.analysis.display.markup import figure
from transparent_llm.analysis.distances import checked_norm
from transparent_llm.analysis.edge import Edge
from transparent_llm.analysis.edges_by_layer import edges_by_layer
from transparent_llm.analysis.graph_picture import graph_picture
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.showing import ShowsItself
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.extras import missing
from transparent_llm.runtime.indexing import checked_index

_FIELDS = ContributionEdges._fields


class Reached(NamedTuple):
    """From which nodes a prediction is reached, for several predictions at once."""

    tokens: Bool[torch.Tensor, "start pos"]
    """X0."""

    after_attn: Bool[torch.Tensor, "start layer pos"]
    """A."""

    ffn: Bool[torch.Tensor, "start layer pos"]
    """M."""

    out: Bool[torch.Tensor, "start layer pos"]
    """I."""


@dataclass(frozen=True, eq=False, repr=False)
class _Edges(ShowsItself):
    """Weights of all edges of a row without padding."""

    attention: Float[torch.Tensor, "layer target source"]
    """From each position to the stream after attention, over all heads; nothing above the diagonal."""

    attention_residual: Float[torch.Tensor, "layer pos"]
    """Of the stream that entered the layer. It and what a position attends to itself are one edge."""

    ffn: Float[torch.Tensor, "layer pos"]
    """Both edges of M have it."""

    ffn_residual: Float[torch.Tensor, "layer pos"]
    """From the stream after attention, past the feed-forward part."""

    tokens: tuple[str, ...]
    """The text of each position."""

    @abstractmethod
    def edges(self) -> list[Edge]:
        """Those that count."""

    def labelled(self) -> Labelled:
        """The weights as tensors; the picture is of `edges()`."""
        layers, words = Axis("layer", range(self.n_layers)), {"token": self.tokens}
        places = tuple(Axis(name, range(len(self.tokens)), words) for name in ("target", "source"))
        of = dict.fromkeys(_FIELDS, ("layer", "target")) | {_FIELDS[0]: ("layer", "target", "source")}
        tensors = {name: OnAxes(getattr(self, name), axes) for name, axes in of.items()}
        return _Drawn(repr(self).strip("<>"), (layers, *places), tensors, self)

    @property
    def n_layers(self) -> int:
        """Layers of the model."""
        return self.attention.shape[0]

    def _merged(self) -> torch.Tensor:
        """All that enters the stream after attention [layer target source]."""
        return self.attention + torch.diag_embed(self.attention_residual)

    def _edges(self, counts: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[Edge]:
        merged = self._merged()
        for layer in range(self.n_layers):
            entering = _entering(layer)
            for (t, s), weight in _found(merged[layer], counts):
                kind = "residual" if s == t else "attention"
                yield Edge(f"{entering}_{s}", f"A{layer}_{t}", weight, kind, layer, s, t)
            for (t,), weight in _found(self.ffn[layer], counts):
                yield Edge(f"A{layer}_{t}", f"M{layer}_{t}", weight, "ffn", layer, t, t)
                yield Edge(f"M{layer}_{t}", f"I{layer}_{t}", weight, "ffn", layer, t, t)
            for (t,), weight in _found(self.ffn_residual[layer], counts):
                yield Edge(f"A{layer}_{t}", f"I{layer}_{t}", weight, "ffn_residual", layer, t, t)


@dataclass(frozen=True, eq=False, repr=False)
class _Drawn(Labelled):
    graph: _Edges

    def picture(self) -> str:
        """Tokens beside each other, layers from the bottom up."""
        graph = self.graph
        drawn = graph_picture(graph.edges(), title=self.title, tokens=graph.tokens, n_layers=graph.n_layers)
        return figure(self.title, drawn)


@dataclass(frozen=True, eq=False, repr=False)
class GraphDifference(_Edges):
    """Weights of one graph less those of another, edge by edge; `tokens` are those of the first."""

    other_tokens: tuple[str, ...]
    """The text of each position of the other one."""

    def __repr__(self) -> str:
        return f"<GraphDifference of {self.n_layers} layers, {len(self.tokens)} tokens>"

    def edges(self) -> list[Edge]:
        """Those that differ, the largest difference first."""
        return sorted(self._edges(lambda weights: weights != 0), key=lambda edge: -abs(edge.weight))


@dataclass(frozen=True, eq=False, repr=False)
class ContributionGraph(_Edges):
    """Weights of all edges, and which of them count.

    With `renormalize`, what was not above the threshold is 0 already, and all that is left counts. Without, edges count
    if they are above it.
    """

    threshold: float
    renormalize: bool
    norm: str

    @classmethod
    def of_layers(
        cls,
        layers: Sequence[ContributionEdges],
        tokens: Sequence[str],
        threshold: float = 0.04,
        renormalize: bool = True,
        norm: str = "l1",
    ) -> ContributionGraph:
        """Put together what `contribution_edges` gave for each layer.

        Args:
            layers: All of a model, from the first.
            tokens: The text of each token of the row; what the layers have beyond it is padding and left out.
            threshold: That the layers were asked for with, and so the rest.
            renormalize: See there.
            norm: See there.

        Raises:
            InvalidRequestError: no layers, or a layer has fewer positions than there are tokens.
        """
        n, least = len(tokens), min((layer.ffn.shape[0] for layer in layers), default=-1)
        if least < n:
            had = f"a layer has {least} positions" if layers else "there are no layers"
            raise InvalidRequestError(f"a graph of {n} tokens needs as many positions in each layer: {had}")
        cut = [ContributionEdges(layer.attention[:n, :n], *(part[:n] for part in layer[1:])) for layer in layers]
        attention, residual, ffn, past = (
            torch.stack([part.cpu() for part in parts]) for parts in zip(*cut, strict=True)
        )
        how = (checked_threshold(threshold), renormalize, checked_norm(norm))
        return cls(attention, residual, ffn, past, tuple(tokens), *how)

    def __repr__(self) -> str:
        how = "renormalized above" if self.renormalize else "edges above"
        shape = f"{self.n_layers} layers, {len(self.tokens)} tokens"
        return f"<ContributionGraph of {shape}, {how} {self.threshold:g}, {self.norm}>"

    def edges(self) -> list[Edge]:
        """All that count, layer after layer."""
        return list(self._edges(self._counts))

    def reachable(self, starts: Sequence[int] | None = None, layer: int = -1) -> Reached:
        """From which nodes the stream that leaves a layer is reached, over edges that count; it is reached from itself.

        Args:
            starts: Positions, negative ones from the end. None: all of them.
            layer: A negative one counts from the last.

        Raises:
            IndexOutOfRangeError: no such position or layer.
        """
        n, last = len(self.tokens), checked_index("layer", layer, self.n_layers)
        at = list(range(n)) if starts is None else [checked_index("start", start, n) for start in starts]
        merged, ffn, past = (self._counts(part) for part in (self._merged(), self.ffn, self.ffn_residual))
        reached = torch.zeros((3, len(at), self.n_layers, n), dtype=torch.bool)
        after_attn, in_ffn, out = reached
        leaving = torch.zeros((len(at), n), dtype=torch.bool)
        leaving[range(len(at)), at] = True
        for i in range(last, -1, -1):
            out[:, i], in_ffn[:, i] = leaving, leaving & ffn[i]
            after_attn[:, i] = in_ffn[:, i] | (leaving & past[i])
            leaving = after_attn[:, i].float() @ merged[i].float() > 0
        return Reached(leaving, after_attn, in_ffn, out)

    def paths(self, start: int | Sequence[int] = -1, layer: int = -1) -> ContributionGraph:
        """The same graph with those edges alone that lie on a path to the stream that leaves a layer at a position, or
        at one of several; others that count are 0. Arguments and errors are those of `reachable`."""
        reached = self.reachable(start if isinstance(start, Sequence) else [start], layer)
        after_attn, in_ffn, out = (nodes.any(dim=0) for nodes in reached[1:])
        merged = self._counts(self._merged()) & after_attn[:, :, None]
        return replace(
            self,
            attention=torch.where(merged, self.attention, 0),
            attention_residual=torch.where(merged.diagonal(dim1=1, dim2=2), self.attention_residual, 0),
            ffn=torch.where(in_ffn, self.ffn, 0),
            ffn_residual=torch.where(out & self._counts(self.ffn_residual), self.ffn_residual, 0),
        )

    def diff(self, other: ContributionGraph) -> GraphDifference:
        """Weights of this graph less those of another one of the same shape, such as of another run.

        Raises:
            InvalidRequestError: it has other layers or positions, or was asked for in another way.
        """
        for name, ours, theirs in self._compared(other):
            if ours != theirs:
                raise InvalidRequestError(
                    f"graphs to compare must agree in {name}: {ours} here, {theirs} in the other",
                    metadata={"argument": "other"},
                )
        attention, residual, ffn, past = (getattr(self, name) - getattr(other, name) for name in _FIELDS)
        return GraphDifference(attention, residual, ffn, past, self.tokens, other.tokens)

    def to_networkx(self) -> Any:
        """A `networkx.DiGraph` of the edges that count, and the nodes at their ends.

        Edges have `weight`, `kind` and `layer`; nodes `layer` (that of X is -1), `pos` and `token`.

        Raises:
            ImportError: networkx is not installed.
        """
        try:
            import networkx
        except ModuleNotFoundError as error:
            raise ImportError(missing("to_networkx", "graph", error)) from error
        graph = networkx.DiGraph()
        for edge in self.edges():
            for node, pos in ((edge.source, edge.source_pos), (edge.target, edge.target_pos)):
                graph.add_node(node, layer=_layer_of(node), pos=pos, token=self.tokens[pos])
            graph.add_edge(edge.source, edge.target, weight=edge.weight, kind=edge.kind, layer=edge.layer)
        return graph

    def _counts(self, weights: torch.Tensor) -> torch.Tensor:
        return weights > (0.0 if self.renormalize else self.threshold)

    def _compared(self, other: ContributionGraph) -> tuple[tuple[str, object, object], ...]:
        return (
            ("layers", self.n_layers, other.n_layers),
            ("tokens", len(self.tokens), len(other.tokens)),
            *((name, getattr(self, name), getattr(other, name)) for name in ("threshold", "renormalize", "norm")),
        )


def contribution_graph(
    llm: TransparentLlm,
    batch_i: int = 0,
    threshold: float = 0.04,
    renormalize: bool = True,
    norm: str = "l1",
    *,
    starts: Sequence[int] | None = None,
    progress: bool | Report | None = None,
) -> ContributionGraph:
    """The contribution graph of a row of the current run.

    Args:
        llm: Its current run is read.
        batch_i: Row of the batch.
        threshold: A contribution counts if it is larger; see `contribution_edges`.
        renormalize: Whether those that do not count are taken out before heads are summed, and the others divided by
            their sum. False: nothing is taken out, and an edge counts if the sum over heads is above the threshold.
            The two give different graphs.
        norm: "l1", as the definition has it, or "l2", which is less work.
        starts: Positions of predictions: only `paths` to them. None: all edges.
        progress: A function that is given the number of layers that are done, and of all; a bar (True), none (False),
            or a bar if someone watches and it takes a while (None).

    Raises:
        As `contribution_edges`, and `paths` for `starts`.
    """
    row, how = Row.of(llm, batch_i), (threshold, renormalize, norm)
    n_layers, layers = llm.model_info().n_layers, []
    coming, tokens = edges_by_layer(llm, row, n_layers, how), row.words(llm)
    with Bar("contribution graph", "layers", n_layers, progress) as bar, closing(coming):
        for layer in coming:
            layers.append(layer)
            bar.add(1)
    graph = ContributionGraph.of_layers(layers, tokens, *how)
    return graph if starts is None else graph.paths(starts)


def _entering(layer: int) -> str:
    return "X0" if layer == 0 else f"I{layer - 1}"


def _layer_of(node: str) -> int:
    return -1 if node.startswith("X") else int(node[1:].partition("_")[0])


def _found(
    weights: torch.Tensor, counts: Callable[[torch.Tensor], torch.Tensor]
) -> Iterator[tuple[tuple[int, ...], float]]:
    """Where weights count, and what they are."""
    places = counts(weights).nonzero()
    yield from zip(map(tuple, places.tolist()), weights[tuple(places.T)].tolist(), strict=True)
