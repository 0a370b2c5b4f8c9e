"""A grid of words coloured by numbers, such as layers by positions of a lens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from transparent_llm.analysis.display.cutting import Kept, left_out
from transparent_llm.analysis.display.markup import figure, isolated, note, require_as_many, table_of, visible
from transparent_llm.analysis.display.scale import Colour, Scale, number

MOST_COLUMNS = 128
MOST_ROWS = 128
MOST_CELLS = 8192
"""About 2 MB."""

Texts = Sequence[Sequence[str]]
"""One for each cell, row by row."""


def grid_html(
    values: object,
    *,
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    cells: Texts | None = None,
    notes: Texts | None = None,
    row_axis: str = "layer",
    column_axis: str = "pos",
    value_name: str = "value",
    upwards: bool = False,
    scale: Scale | None = None,
) -> str:
    """A table of cells, as HTML.

    Each cell has its value as `data-value`, with all digits of its float64, and with four when the mouse rests on it.

    Args:
        values: Numbers [row column], by which cells are coloured.
        title: Above it.
        rows: A label for each row.
        columns: A label for each column, such as the string of a token.
        cells: What stands in each cell. None: its number.
        notes: What else is said where the mouse rests.
        row_axis: What rows are.
        column_axis: What columns are.
        value_name: What the numbers are.
        upwards: The first row stands at the bottom, as layers are drawn.
        scale: Of the colours. None: by the values.

    Raises:
        InvalidRequestError: values are no table, or there is not one label or text for each place.
    """
    table = table_of(values, "values", 2)
    _require_labels(rows, columns, *table.shape, cells=cells, notes=notes)
    across = Kept.of(column_axis, len(columns), MOST_COLUMNS)
    down = Kept.of(row_axis, len(rows), min(MOST_ROWS, MOST_CELLS // max(1, len(across.indices))))
    down_names, across_names = [visible(row) for row in rows], [visible(column) for column in columns]
    numbers, fills = table.tolist(), (scale or Scale.of(table)).colours(table).tolist()

    def cell(row: int, column: int) -> str:
        value, colour = numbers[row][column], Colour(*fills[row][column])
        text = number(value) if cells is None else cells[row][column]
        more = "" if notes is None else f"\n{notes[row][column]}"
        said = note(
            f"{value_name} {number(value)}: {row_axis} {down_names[row]}, {column_axis} {across_names[column]}{more}"
        )
        style = f"background: {colour.fill}; color: {colour.ink}"
        return f'<td style="{style}" data-value="{value!r}" title="{said}">{isolated(text)}</td>'

    head = "".join(f'<th scope="col">{isolated(columns[column])}</th>' for column in across.indices)
    body = [
        f'<tr><th scope="row">{isolated(rows[row])}</th>{"".join(cell(row, i) for i in across.indices)}</tr>'
        for row in down.indices
    ]
    corner = f"{row_axis} / {column_axis}"
    drawn = _table(corner, head, reversed(body) if upwards else body)
    return figure(title, drawn, left_out([down.words, across.words]))


def _table(corner: str, head: str, lines: Iterable[str]) -> str:
    style = "border-collapse: separate; border-spacing: 1px; white-space: pre; text-align: left; font: inherit"
    first = f"<tr><th>{isolated(corner)}</th>{head}</tr>"
    return f'<table style="{style}" cellpadding="3">{first}{"".join(lines)}</table>'


def _require_labels(
    rows: Sequence[str], columns: Sequence[str], n_rows: int, n_columns: int, **texts: Texts | None
) -> None:
    require_as_many("rows", rows, n_rows)
    require_as_many("columns", columns, n_columns)
    for what, lines in texts.items():
        if lines is not None:
            require_as_many(what, lines, n_rows)
            for row, line in enumerate(lines):
                require_as_many(f"{what}[{row}]", line, n_columns)
