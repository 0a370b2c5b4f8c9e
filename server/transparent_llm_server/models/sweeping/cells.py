"""The edits of cells, as those of the rows that the cells are in one pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from transparent_llm.analysis.sweep_cells import Cell, Sweep, within
from transparent_llm.interventions import Intervention, Site
from transparent_llm.interventions.site import SiteKind
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.interventions.edit import Edit, Function
from transparent_llm_server.models.interventions.multiplied import require_few_runs
from transparent_llm_server.models.interventions.rewriting import checked_edit
from transparent_llm_server.models.interventions.selection import (
    MOST_PLACES,
    Selection,
    n_places,
    require_few_places,
)
from transparent_llm_server.models.interventions.sites import checked_site
from transparent_llm_server.models.interventions.sources import Sources


@dataclass(frozen=True)
class _Together:
    """The functions of several edits, of the elements of all of them."""

    functions: tuple[Function, ...]
    sizes: tuple[int, ...]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        parts = zip(self.functions, torch.split(x, list(self.sizes)), strict=True)
        return torch.cat([function(part) for function, part in parts])


class Cells:
    """Of one sweep of a run.

    Raises:
        IndexOutOfRangeError: a layer, head, neuron, row, position or token that is not there.
        NotSupportedError: the model has nothing at a site.
        InvalidRequestError: nothing is selected, a source is of another model, or a cell names what a template lacks.
        TooLargeError: too many places are selected in one cell, or runs that queries and keys are taken from.
    """

    def __init__(
        self, model: BridgedModel, sweep: Sweep, rows: tuple[int, ...], lengths: Sequence[int], sources: Sources
    ) -> None:
        self._model, self._sweep, self._sources = model, sweep, sources
        self._rows, self._lengths = rows, lengths
        self._place = {row: n for n, row in enumerate(rows)}
        fixed = [replace(edit, rows=within(edit, rows)) for edit in sweep.edits]
        require_few_runs([*fixed, *sweep.templates])
        self._n_fixed = sum(n_places(edit, lengths) for edit in fixed)
        self._of_lengths = {lengths[row] for row in rows}
        self._most_places = 0
        self.layers = tuple(map(self._checked, sweep.cells))
        """Of each cell, the first layer that its templates change; that after the last, where it is the final norm."""

        require_few_places(fixed, lengths)
        self._fixed = [self._made(edit) for edit in fixed]
        self.fixed_layer = min((self._layer(made.site) for made in self._fixed), default=len(model.layers))
        """The same of the sweep's own edits."""

    @property
    def most_at_once(self) -> int:
        """Cells whose edits select few enough places together."""
        return max(1, MOST_PLACES // max(1, self._n_fixed + self._most_places))

    def edits(self, cells: Sequence[int]) -> list[Edit]:
        """Of a pass that has all rows of each of these cells, one cell after the other."""
        made = [[*self._fixed, *map(self._made, self._of(self._sweep.cells[cell]))] for cell in cells]
        return self._together(made)

    def fixed_edits(self) -> list[Edit]:
        """Of a pass that has all rows once, without templates."""
        return self._together([self._fixed])

    def _of(self, cell: Cell) -> list[Intervention]:
        return [cell.put(template, self._rows) for template in self._sweep.templates]

    def _checked(self, cell: Cell) -> int:
        edits = self._of(cell)
        sites = [checked_site(self._model, edit.site) for edit in edits]
        for edit in edits:
            for position in () if isinstance(edit.positions, str) else edit.positions:
                for length in self._of_lengths:
                    checked_index("position", position, length)
        require_few_places(edits, self._lengths)
        self._most_places = max(self._most_places, sum(n_places(edit, self._lengths) for edit in edits))
        return min(map(self._layer, sites))

    def _layer(self, site: Site) -> int:
        return len(self._model.layers) if site.kind is SiteKind.FINAL_NORM_SCALE else site.layer

    def _made(self, edit: Intervention) -> Edit:
        """In one cell, of the base run."""
        return checked_edit(self._model, edit, self._lengths, self._sources)

    def _together(self, cells: Sequence[Sequence[Edit]]) -> list[Edit]:
        """Those of one place in the list and of one site as one edit: they are of different rows."""
        found: list[Edit] = []
        for nth in zip(*cells, strict=True):
            of_site: dict[Site, list[tuple[int, Edit]]] = {}
            for n, made in enumerate(nth):
                of_site.setdefault(made.site, []).append((n, made))
            for site, several in of_site.items():
                rows = [n * len(self._rows) + self._place[row] for n, made in several for row in made.selected.rows]
                positions = [position for _, made in several for position in made.selected.positions]
                functions = tuple(made.function for _, made in several)
                together = _Together(functions, tuple(len(made.selected.rows) for _, made in several))
                selection = Selection(tuple(rows), tuple(positions), (), ())
                found.append(Edit(several[0][1].edit, site, selection, together))
        return found
