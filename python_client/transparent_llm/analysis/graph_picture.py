"""The picture of a contribution graph: which node of it stands where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from transparent_llm.analysis.display import graph as picture


class _Edge(Protocol):
    @property
    def source(self) -> str: ...
    @property
    def target(self) -> str: ...
    @property
    def weight(self) -> float: ...
    @property
    def kind(self) -> str: ...


_PLACES = {"X": (0.0, 0.0), "A": (1 / 3, 0.0), "M": (2 / 3, 0.3), "I": (1.0, 0.0)}
"""Row above that of the layer's number, column beside that of the position."""


def graph_picture(edges: Iterable[_Edge], *, title: str, tokens: Sequence[str], n_layers: int) -> str:
    """As SVG; of negative weights the size is drawn, and the kind says that it is less."""
    drawn = [_drawn(edge) for edge in edges]
    names = dict.fromkeys(name for edge in drawn for name in (edge.source, edge.target))
    layers = ["embedding", *(f"layer {layer}" for layer in range(n_layers))]
    return picture.graph_svg([_node(name, tokens) for name in names], drawn, title=title, tokens=tokens, layers=layers)


def _drawn(edge: _Edge) -> picture.Edge:
    kind = edge.kind if edge.weight >= 0 else f"{edge.kind}, less"
    return picture.Edge(edge.source, edge.target, abs(edge.weight), kind)


def _node(name: str, tokens: Sequence[str]) -> picture.Node:
    layer, _, pos = name[1:].partition("_")
    row, column = _PLACES[name[0]]
    kind = "ffn" if name[0] == "M" else ""
    return picture.Node(name, int(layer) + row, int(pos) + column, kind, f"{name} {tokens[int(pos)]}")
