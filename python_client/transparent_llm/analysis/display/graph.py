"""A graph over a sentence: tokens are columns, layers are rows from the bottom up, edges are drawn by their weight."""

from __future__ import annotations

import html
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from transparent_llm.analysis.display.cutting import Kept, left_out
from transparent_llm.analysis.display.markup import LONGEST_TITLE, label, note, visible
from transparent_llm.analysis.display.scale import number
from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted, shown

MOST_COLUMNS = 128
MOST_ROWS = 256
MOST_EDGES = 4000
MOST_NODES = 8000
_COLUMN_PX, _ROW_PX, _LEFT_PX, _TOP_PX, _FOOT_PX = 58, 44, 110, 14, 110
_COLOURS = ("#3a9d5d", "#9b5de5", "#e07a1f", "#3b82f6", "#c2410c", "#0d9488")
"""Readable on light and on dark ground; a kind of edge each: those that are known, then others as they come."""

_KNOWN = ("attention", "residual", "ffn", "ffn_residual")
"""Kinds that have the same colour in every picture."""


class Node(NamedTuple):
    """A place in the picture."""

    name: str
    """By which edges find it."""

    row: float
    """From 0, the lowest; between two rows for what stands between them."""

    column: float
    """From 0; between two columns for what stands beside the first of them."""

    kind: str = ""
    """"ffn" is drawn as a square, all else as a circle."""

    text: str = ""
    """Said where the mouse rests on it."""


class Edge(NamedTuple):
    """From one node to another."""

    source: str
    target: str
    weight: float
    kind: str = ""
    """A colour is chosen for each."""


def graph_svg(
    nodes: Sequence[Node], edges: Sequence[Edge], *, title: str, tokens: Sequence[str], layers: Sequence[str]
) -> str:
    """Nodes and the edges between them, as one SVG element.

    An edge has its weight as `data-weight`, with all digits. Of more than 4,000 the heaviest are drawn.

    Args:
        nodes: In any order.
        edges: In any order; their weights are not negative.
        title: Its alternative text.
        tokens: The label of each column.
        layers: The label of each whole row, the lowest first.

    Raises:
        InvalidRequestError: a node lies outside, two have one name, an edge leads to none, or a weight is no number
            from 0 on.
    """
    places = _places(nodes, len(tokens), len(layers))
    _require_edges(edges, places)
    across, up = Kept.of("pos", len(tokens), MOST_COLUMNS), Kept.of("layer", len(layers), MOST_ROWS)
    columns, rows = ({index: at for at, index in enumerate(kept.indices)} for kept in (across, up))
    drawn = {
        name: (_x(node.column, columns), _y(node.row, rows, len(up.indices)))
        for name, node in list(places.items())[:MOST_NODES]
        if math.floor(node.column) in columns and math.floor(node.row) in rows
    }
    between = [edge for edge in edges if edge.source in drawn and edge.target in drawn]
    heaviest = sorted(between, key=lambda edge: -edge.weight)[:MOST_EDGES]
    words = left_out([across.words, up.words, *_fewer(len(nodes), len(drawn), len(edges), heaviest)])
    found = Counter(edge.kind for edge in edges)
    kinds = [*_KNOWN, *(kind for kind in found if kind not in _KNOWN)]
    colours = {kind: _COLOURS[i % len(_COLOURS)] for i, kind in enumerate(kinds) if kind in found}
    parts = [
        *_stripes(layers, up, len(across.indices)),
        *_edges(heaviest, drawn, places, colours),
        *(_node(places[name], at) for name, at in drawn.items()),
    ]
    return _svg(title, parts, tokens, across, len(up.indices), colours, words)


def _places(nodes: Sequence[Node], n_columns: int, n_rows: int) -> dict[str, Node]:
    places: dict[str, Node] = {}
    for node in nodes:
        if not (0 <= node.column < n_columns and 0 <= node.row < n_rows):
            raise InvalidRequestError(
                f"node {quoted(node.name)} is at column {node.column}, row {node.row}, outside of {n_columns} columns "
                f"and {n_rows} rows"
            )
        if node.name in places:
            raise InvalidRequestError(f"two nodes are named {quoted(node.name)}: give each a name of its own")
        places[node.name] = node
    return places


def _require_edges(edges: Sequence[Edge], places: Mapping[str, Node]) -> None:
    for edge in edges:
        lost = next((name for name in (edge.source, edge.target) if name not in places), None)
        if lost is not None:
            raise InvalidRequestError(f"an edge leads to {quoted(lost)}, which is no node")
        if not (math.isfinite(edge.weight) and edge.weight >= 0):
            raise InvalidRequestError(
                f"the edge from {quoted(edge.source)} to {quoted(edge.target)} weighs {edge.weight}; a weight is a "
                "number from 0 on"
            )


def _x(column: float, columns: Mapping[int, int]) -> float:
    whole = math.floor(column)
    return _LEFT_PX + (columns[whole] + 0.5 + column - whole) * _COLUMN_PX


def _y(row: float, rows: Mapping[int, int], n_rows: int) -> float:
    whole = math.floor(row)
    return _TOP_PX + (n_rows - 0.5 - rows[whole] - (row - whole)) * _ROW_PX


def _fewer(n_nodes: int, n_drawn: int, n_edges: int, heaviest: Sequence[Edge]) -> list[str]:
    nodes = f"{n_nodes - n_drawn:,} of {n_nodes:,} nodes left out" if n_drawn < n_nodes else ""
    n = n_edges - len(heaviest)
    least = f", those drawn weigh at least {number(heaviest[-1].weight)}" if heaviest else ""
    return [nodes, f"{n:,} of {n_edges:,} edges left out{least}" if n else ""]


def _stripes(layers: Sequence[str], up: Kept, n_columns: int) -> list[str]:
    drawn = []
    for at, index in enumerate(up.indices):
        top = _TOP_PX + (len(up.indices) - 1 - at) * _ROW_PX
        if at % 2:
            width = n_columns * _COLUMN_PX
            drawn.append(
                f'<rect x="{_LEFT_PX}" y="{top}" width="{width}" height="{_ROW_PX}" fill="currentColor" '
                'opacity="0.06"/>'
            )
        y = top + _ROW_PX / 2 + 4
        drawn.append(f'<text x="{_LEFT_PX - 6}" y="{y:g}" text-anchor="end">{label(layers[index])}</text>')
    return drawn


def _edges(
    heaviest: Sequence[Edge],
    drawn: Mapping[str, tuple[float, float]],
    places: Mapping[str, Node],
    colours: Mapping[str, str],
) -> list[str]:
    """The lightest first, so that heavy ones lie above them."""
    most = max((edge.weight for edge in heaviest), default=0.0) or 1.0
    lines = []
    for edge in reversed(heaviest):
        (x1, y1), (x2, y2), share = drawn[edge.source], drawn[edge.target], edge.weight / most
        said = note(
            f"{edge.kind or 'edge'} {number(edge.weight)}: {_named(places, edge.source)} to "
            f"{_named(places, edge.target)}"
        )
        lines.append(
            f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" stroke="{colours[edge.kind]}" '
            f'stroke-width="{0.6 + 3.4 * share:.2f}" stroke-opacity="{0.25 + 0.75 * share:.2f}" '
            f'data-weight="{edge.weight!r}"><title>{said}</title></line>'
        )
    return lines


def _named(places: Mapping[str, Node], name: str) -> str:
    return visible(places[name].text or name)


def _node(node: Node, at: tuple[float, float]) -> str:
    x, y = at
    shape = (
        f'<rect x="{x - 4:g}" y="{y - 4:g}" width="8" height="8"'
        if node.kind == "ffn"
        else f'<circle cx="{x:g}" cy="{y:g}" r="4"'
    )
    closing = "rect" if node.kind == "ffn" else "circle"
    return f'{shape} fill="currentColor"><title>{note(node.text or node.name)}</title></{closing}>'


def _svg(
    title: str,
    parts: Sequence[str],
    tokens: Sequence[str],
    across: Kept,
    n_rows: int,
    colours: Mapping[str, str],
    words: str,
) -> str:
    bottom = _TOP_PX + n_rows * _ROW_PX
    texts = []
    for at, index in enumerate(across.indices):
        x = _LEFT_PX + (at + 0.5) * _COLUMN_PX
        texts.append(
            f'<text transform="translate({x:g} {bottom + 14}) rotate(-40)" text-anchor="end">'
            f"{index} {label(tokens[index])}</text>"
        )
    x = float(_LEFT_PX)
    for kind, colour in colours.items():
        texts.append(f'<text x="{x:g}" y="{bottom + _FOOT_PX - 4}" fill="{colour}">{label(kind or "edge")}</text>')
        x += 20 + 7 * len(visible(kind or "edge"))
    foot = _FOOT_PX + (18 if words else 0)
    texts += [f'<text x="0" y="{bottom + foot - 4}">{html.escape(words)}</text>'] if words else []
    width = max(_LEFT_PX + len(across.indices) * _COLUMN_PX + 10, round(7 * len(words)), round(x))
    height, name = bottom + foot + 4, html.escape(shown(title, longest=LONGEST_TITLE))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="11" fill="currentColor">'
        f"<title>{name}</title>{''.join(parts)}"
        f'<g style="unicode-bidi: isolate; white-space: pre">{"".join(texts)}</g></svg>'
    )
