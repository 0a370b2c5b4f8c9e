"""Tables for people: as text in a terminal, as HTML in a notebook."""

from __future__ import annotations

import html
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from transparent_llm.quoting import shown

_LONGEST_CELL = 200
"""Characters; what a server says can be megabytes."""

_MOST_ROWS = 2000


@dataclass(frozen=True, repr=False)
class Table:
    """Cells in rows. `print` shows it as text, a notebook as HTML; nothing in a cell reaches either unescaped."""

    title: str
    columns: tuple[str, ...]
    """Names above the columns; none: there is no such line."""

    rows: tuple[tuple[str, ...], ...]
    """As many cells in each as there are columns."""

    @classmethod
    def of(cls, title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
        """Of anything that has a text."""
        cells = (tuple(shown(str(cell), longest=_LONGEST_CELL) for cell in row) for row in rows)
        return cls(shown(title, longest=_LONGEST_CELL), tuple(columns), tuple(cells))

    def __str__(self) -> str:
        lines = [*([self.columns] if self.columns else []), *self._first_rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        padded = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
        return "\n".join([self.title, *(f"  {line.rstrip()}" for line in padded), *self._rest])

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """What notebooks show."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(f"<tr>{_cells(row)}</tr>" for row in self._first_rows)
        rest = "".join(f"<p>{html.escape(line)}</p>" for line in self._rest)
        caption = f"<caption>{html.escape(self.title)}</caption>"
        return f"<table>{caption}{f'<tr>{head}</tr>' if head else ''}{body}</table>{rest}"

    @property
    def _first_rows(self) -> tuple[tuple[str, ...], ...]:
        return self.rows[:_MOST_ROWS]

    @property
    def _rest(self) -> list[str]:
        more = len(self.rows) - _MOST_ROWS
        return [f"  ... {more} more rows"] if more > 0 else []


class Tabular(ABC):
    """What `print`, IPython and notebooks show as a table; its `repr` stays its own."""

    def __init_subclass__(cls) -> None:
        """IPython takes the first of `_repr_pretty_` and `__repr__` that a class itself has: dataclasses have one."""
        super().__init_subclass__()
        cls._repr_pretty_ = Tabular._repr_pretty_  # type: ignore[method-assign]

    @abstractmethod
    def table(self) -> Table:
        """What is shown of it."""

    def __str__(self) -> str:
        return str(self.table())

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:  # noqa: ARG002 - IPython's protocol
        printer.text(str(self))

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def _cells(row: Sequence[str]) -> str:
    return "".join(f"<td style='text-align: left; white-space: pre'>{html.escape(cell)}</td>" for cell in row)
