"""What a sweep is: changes of a run, the places that they are put at one after another, and what is measured."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch

from transparent_llm.analysis.metrics import Metric
from transparent_llm.errors import InvalidRequestError, TooLargeError
from transparent_llm.interventions import Intervention
from transparent_llm.interventions.operation import Freeze, Patch
from transparent_llm.interventions.site import OF_HEADS, SiteKind

MOST_EDITS, MOST_METRICS = 512, 16
"""Of one cell, and of one sweep."""


@dataclass(frozen=True)
class Cell:
    """Coordinates, put in the places of those of each template; None stays as it is there."""

    layer: int | None = None
    head: int | None = None
    neurons: tuple[int, ...] | None = None
    positions: tuple[int, ...] | None = None
    """Of a patch those of its source too."""

    source_row: int | None = None
    """Of a patch: the one row that all are taken from."""

    def put(self, template: Intervention, rows: tuple[int, ...]) -> Intervention:
        """The edit that it makes of a template, in these rows of those of the base run.

        Raises:
            InvalidRequestError: the template has no such coordinate, or names a row that is not one of these.
        """
        site, operation = template.site, template.operation
        if self.layer is not None:
            site = replace(site, layer=self.layer)
        if self.head is not None:
            _require("a head", site.kind in OF_HEADS, template)
            site = replace(site, head=self.head)
        if self.neurons is not None:
            _require("neurons", site.kind is SiteKind.NEURONS, template)
            site = replace(site, neurons=self.neurons)
        positions = template.positions
        if self.positions is not None:
            _require("positions", not isinstance(operation, Freeze), template)
            positions = self.positions
            operation = replace(operation, positions=None) if isinstance(operation, Patch) else operation
        chosen = within(template, rows)
        if self.source_row is not None:
            if not isinstance(operation, Patch):
                raise InvalidRequestError(f"a cell names a row of its source, which {template} has none of")
            operation = replace(operation, rows=(self.source_row,) * len(chosen))
        return replace(template, site=site, operation=operation, positions=positions, rows=chosen)


def within(edit: Intervention, rows: tuple[int, ...]) -> tuple[int, ...]:
    """The rows of an edit, where only these are swept.

    Raises:
        InvalidRequestError: it names another one.
    """
    if edit.rows == "all":
        return rows
    if not set(edit.rows) <= set(rows):
        raise InvalidRequestError(f"{edit} names rows that are not swept, which are {list(rows)[:10]}, from 0 on")
    return tuple(edit.rows)


@dataclass(frozen=True, eq=False)
class Sweep:
    """Of the current run of an object: each cell is that run with the changes of the cell, of which nothing is kept."""

    templates: tuple[Intervention, ...]
    """Made in every cell, with its coordinates. Rows are those of the run, from 0."""

    cells: tuple[Cell, ...]
    metrics: tuple[Metric, ...]
    """Of token ids: see `Metric.of_ids`."""

    rows: tuple[int, ...] = ()
    """Of the run, which are swept; none: all."""

    edits: tuple[Intervention, ...] = ()
    """Made in every cell as they stand, before the templates."""

    def __post_init__(self) -> None:
        for name, least in (("templates", self.templates), ("cells", self.cells), ("metrics", self.metrics)):
            if not least:
                raise InvalidRequestError(f"a sweep has no {name}: give at least one")
        _require_few("edits of one cell", len(self.templates) + len(self.edits), MOST_EDITS)
        _require_few("metrics of one sweep", len(self.metrics), MOST_METRICS)

    def positions(self, batch_pos: tuple[int, ...]) -> int:
        """That it computes at the most, of a run of so many rows and positions."""
        batch, n_pos = batch_pos
        return len(self.cells) * (len(self.rows) or batch) * n_pos


class SweepPart(NamedTuple):
    """Of a sweep, what is known by now."""

    baselines: torch.Tensor | None
    """Of the run with the sweep's `edits` alone [metric row], float64; in the first part."""

    cells: tuple[int, ...]
    """Their places in the sweep. Each comes once, in the order of their layers."""

    values: torch.Tensor
    """Of these [cell metric row], float64."""


class SweepPlan(NamedTuple):
    """What a sweep would take."""

    positions: int
    """That are computed at the most: cells times rows times positions of the run."""

    max_positions: int
    """Of one sweep. 0: there is no limit."""

    cells_at_once: int
    """That share a pass."""


class Sweepable:
    """An object whose current run can be swept, next to the weights."""

    @abstractmethod
    def sweep(self, sweep: Sweep) -> Iterator[SweepPart]:
        """What each cell gives, some at a time. A loop that is left ends the work.

        Raises:
            InvalidRequestError: the current run has edits of its own; a cell or metric makes no sense.
            IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
            NotSupportedError: the model has nothing at a site, or its runs cannot be edited.
            TooLargeError: more than the server computes at once.
        """

    @abstractmethod
    def plan_sweep(self, sweep: Sweep) -> SweepPlan:
        """What it would take; nothing of it is computed. Raises: as `sweep`, but for what is too much."""


def _require(what: str, has_it: bool, template: Intervention) -> None:
    if not has_it:
        raise InvalidRequestError(f"a cell names {what}, which {template} has none of")


def _require_few(what: str, count: int, most: int) -> None:
    if count > most:
        raise TooLargeError(
            f"{count} {what}, at most {most} can be made", metadata={"needed": str(count), "allowed": str(most)}
        )
