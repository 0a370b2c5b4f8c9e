"""Numbers as coloured squares: one table, or the attention of all heads of a layer side by side."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence

import torch
from jaxtyping import Float

from transparent_llm.analysis.display.cutting import Kept, left_out
from transparent_llm.analysis.display.markup import (
    LONGEST_TITLE,
    figure,
    isolated,
    label,
    note,
    require_as_many,
    table_of,
    visible,
)
from transparent_llm.analysis.display.pixels import data_url
from transparent_llm.analysis.display.scale import Colour, Scale, number
from transparent_llm.quoting import shown

MOST_SQUARES = 20_000
"""Elements with a number each, of all heads together: about 3 MB."""

MOST_PIXELS = 1_000_000
"""Where there are more squares than that."""

MOST_HEADS = 256
_SIDE = 128
"""Places of an axis of a heatmap."""

_LABELLED = 48
"""Places of an axis that can have labels beside them."""

_MARGIN_PER_SIGN = 6.5


def heatmap_svg(
    values: object,
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    row_axis: str = "row",
    column_axis: str = "column",
    value_name: str = "value",
    cell_px: int = 14,
    scale: Scale | None = None,
) -> str:
    """A table of coloured squares, as one SVG element.

    A square has its value as `data-value`, with all digits of its float64. One that is 0 at the light end of the
    colours is left to the background.

    Args:
        values: Numbers [row column].
        title: Its alternative text.
        rows: A label for each row.
        columns: A label for each column.
        row_axis: What rows are.
        column_axis: What columns are.
        value_name: What the numbers are.
        cell_px: Side of a square.
        scale: Of the colours. None: by the values.

    Raises:
        InvalidRequestError: values are no table, or there is not one label for each place.
    """
    table = table_of(values, "values", 2)
    require_as_many("rows", rows, table.shape[0])
    require_as_many("columns", columns, table.shape[1])
    down, across = (Kept.of(axis, len(of), _SIDE) for axis, of in ((row_axis, rows), (column_axis, columns)))
    part = table[list(down.indices)][:, list(across.indices)]
    row_names, column_names = _numbered(rows, down), _numbered(columns, across)
    squares = _squares(
        part,
        row_names,
        column_names,
        scale or Scale.of(table),
        f"{value_name} {{}}: {row_axis} {{}}, {column_axis} {{}}",
    )
    return _svg(title, squares, row_names, column_names, cell_px, left_out([down.words, across.words]))


def attention_html(
    patterns: object,
    *,
    title: str,
    queries: Sequence[str],
    keys: Sequence[str] | None = None,
    heads: Sequence[str] | None = None,
    value_name: str = "attention",
) -> str:
    """All heads of a layer, side by side on one scale from 0 to 1 (or to the largest, if that is more), as HTML.

    Up to 20,000 squares have their numbers, as in `heatmap_svg`; more become pictures of a pixel each, which have the
    largest entry as words.

    Args:
        patterns: Attention probabilities, or other numbers [head query_pos key_pos].
        title: Above it.
        queries: The token of each query position.
        keys: The token of each key position. None: the same.
        heads: A name for each head. None: its number.
        value_name: What the numbers are.

    Raises:
        InvalidRequestError: there is not one label for each place.
    """
    tensor = table_of(patterns, "patterns", 3)
    keys = queries if keys is None else keys
    names = [str(head) for head in range(tensor.shape[0])] if heads is None else heads
    for what, of, size in zip(("heads", "queries", "keys"), (names, queries, keys), tensor.shape, strict=True):
        require_as_many(what, of, size)
    shown_heads = Kept.of("head", len(names), MOST_HEADS)
    most = max(1, math.isqrt(MOST_PIXELS // max(1, len(shown_heads.indices))))
    down, across = Kept.of("query_pos", len(queries), most), Kept.of("key_pos", len(keys), most)
    scale = Scale.of(tensor)
    scale = scale if scale.diverges else Scale(0.0, max(1.0, scale.high))
    row_names, column_names = _numbered(queries, down), _numbered(keys, across)
    n_squares = len(shown_heads.indices) * len(row_names) * len(column_names)
    pictures = []
    for head in shown_heads.indices:
        pattern = tensor[head][list(down.indices)][:, list(across.indices)]
        draw = _head_of_squares if n_squares <= MOST_SQUARES else _head_of_pixels
        picture = draw(pattern, f"{value_name}, head {names[head]}", row_names, column_names, scale, value_name)
        caption = f"<figcaption>head {isolated(names[head])}</figcaption>"
        pictures.append(f'<figure style="margin: 0" data-head="{label(names[head])}">{caption}{picture}</figure>')
    body = f'<div style="display: flex; flex-wrap: wrap; gap: 12px">{"".join(pictures)}</div>'
    return figure(title, body, left_out([shown_heads.words, down.words, across.words]))


def _head_of_squares(
    pattern: Float[torch.Tensor, "row column"],
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    value_name: str,
) -> str:
    squares = _squares(pattern, rows, columns, scale, f"{value_name} {{}}: from {{}} to {{}}")
    return _svg(title, squares, rows, columns, 12 if len(rows) <= _LABELLED else 5)


def _head_of_pixels(
    pattern: Float[torch.Tensor, "row column"],
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    scale: Scale,
    value_name: str,
) -> str:
    at = int(pattern.nan_to_num(-math.inf).argmax())
    row, column = divmod(at, len(columns))
    largest = f"largest {value_name} {number(float(pattern[row, column]))}, from {rows[row]} to {columns[column]}"
    said, side = note(f"{title}: {largest}"), max(1, 300 // max(1, len(columns)))
    size = f'width="{side * len(columns)}" height="{side * len(rows)}"'
    source = data_url(scale.colours(pattern))
    return f'<img src="{source}" {size} style="image-rendering: pixelated" alt="{said}" title="{said}">'


def _numbered(names: Sequence[str], kept: Kept) -> list[str]:
    """The number of each place, and its label where that says more."""
    return [f"{i} {visible(names[i])}" if names[i] != str(i) else str(i) for i in kept.indices]


def _squares(
    table: Float[torch.Tensor, "row column"], rows: Sequence[str], columns: Sequence[str], scale: Scale, words: str
) -> str:
    """One unit wide and high each."""
    numbers, fills = table.tolist(), scale.colours(table).tolist()
    is_ground = scale.low == 0 and not scale.diverges
    drawn = [f'<rect width="{len(columns)}" height="{len(rows)}" fill="{_ground(scale)}"/>']
    for row, line in enumerate(numbers):
        for column, value in enumerate(line):
            if value == 0 and is_ground:
                continue
            said = note(words.format(number(value), rows[row], columns[column]))
            drawn.append(
                f'<rect x="{column}" y="{row}" width="1" height="1" fill="{Colour(*fills[row][column]).fill}" '
                f'data-value="{value!r}"><title>{said}</title></rect>'
            )
    return "".join(drawn)


def _ground(scale: Scale) -> str:
    return Colour(*scale.colours(torch.zeros(1)).tolist()[0]).fill


def _svg(title: str, squares: str, rows: Sequence[str], columns: Sequence[str], cell_px: int, words: str = "") -> str:
    """Squares with labels beside and above, where there is room for them."""
    left, top = (_margin(names) if len(names) <= _LABELLED else 0 for names in (rows, columns))
    width, height = left + len(columns) * cell_px, top + len(rows) * cell_px
    texts = [
        f'<text x="{left - 4}" y="{top + (i + 0.75) * cell_px:g}" text-anchor="end">{html.escape(name)}</text>'
        for i, name in enumerate(rows if left else [])
    ]
    for i, name in enumerate(columns if top else []):
        x = left + (i + 0.75) * cell_px
        texts.append(f'<text transform="translate({x:g} {top - 4}) rotate(-90)">{html.escape(name)}</text>')
    foot = 16 if words else 0
    texts += [f'<text x="0" y="{height + 12}">{html.escape(words)}</text>'] if words else []
    name = html.escape(shown(title, longest=LONGEST_TITLE))
    # a caption of many words would be cut off at the edge of a small picture
    wide, high = max(width, round(len(words) * _MARGIN_PER_SIGN)), height + foot
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" width="{wide}" height="{high}" '
        f'viewBox="0 0 {wide} {high}" font-family="monospace" font-size="10" fill="currentColor">'
        f'<title>{name}</title><g transform="translate({left} {top}) scale({cell_px})">{squares}</g>'
        f'<g style="unicode-bidi: isolate; white-space: pre">{"".join(texts)}</g></svg>'
    )


def _margin(names: Sequence[str]) -> int:
    return 8 + round(_MARGIN_PER_SIGN * max(map(len, names), default=0))
