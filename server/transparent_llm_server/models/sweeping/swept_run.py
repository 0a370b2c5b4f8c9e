"""A run that is swept: which cells share a pass, what such a pass computes, and what it gives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from transparent_llm.analysis.sweep_cells import Sweep
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit
from transparent_llm_server.models.interventions.rewriting import EditedPass
from transparent_llm_server.models.interventions.sites import captured
from transparent_llm_server.models.interventions.sources import Sources
from transparent_llm_server.models.sweeping.cells import Cells
from transparent_llm_server.models.sweeping.measures import Left, Measures
from transparent_llm_server.models.sweeping.starts import start_of

_POSITIONS_AT_ONCE = {"cpu": 256, "cuda": 16_384}
"""Of one pass: with more, it takes as long for each, and more of the layers below a change are computed."""


class SweptRun:
    """A sweep, checked; nothing is computed before `baselines` and `measured` are asked for.

    Raises:
        InvalidRequestError: the run has edits, its rows cannot share a pass; or as `Cells` and `Measures`.
        IndexOutOfRangeError, NotSupportedError, TooLargeError: as these.
    """

    def __init__(self, model: BridgedModel, values: RunValues, sweep: Sweep) -> None:
        if values.effects:
            raise InvalidRequestError(
                "a run that was edited is no base of a sweep: sweep the run without edits, and give them to the sweep"
            )
        self._model, self._values, self._capture = model, values, values.capture
        lengths: list[int] = self._capture.mask.sum(dim=1).tolist()
        self.rows = tuple(checked_index("row", row, len(lengths)) for row in sweep.rows) or tuple(range(len(lengths)))
        if len(set(self.rows)) != len(self.rows):
            raise InvalidRequestError("rows names one twice")
        of_rows = [lengths[row] for row in self.rows]
        if len(model.regimes.groups(of_rows)) > 1:
            raise InvalidRequestError(
                f"rows of {sorted(set(of_rows))} tokens have passes of their own in this model: sweep them one by one"
            )
        self._n_pos: int = max(of_rows)
        self._tokens = self._capture.tokens[list(self.rows), : self._n_pos]
        self._mask = self._capture.mask[list(self.rows), : self._n_pos]
        sources = Sources(model)
        self._cells = Cells(model, sweep, self.rows, lengths, sources)
        token_ids = [row[:length].tolist() for row, length in zip(self._tokens, of_rows, strict=True)]
        self._measures = Measures(model, sweep.metrics, token_ids, values, self.rows, sources)
        self._has_edits = bool(sweep.edits)
        self.n_cells, self.n_metrics = len(sweep.cells), len(sweep.metrics)

    @property
    def positions_of_cell(self) -> int:
        """That are computed for a cell, at the most: its rows, padded."""
        return len(self.rows) * self._n_pos

    @property
    def cells_at_once(self) -> int:
        """That share a pass."""
        if self._model.regimes.alone:
            return 1
        positions = _POSITIONS_AT_ONCE.get(self._model.device.type, _POSITIONS_AT_ONCE["cpu"])
        return min(max(1, positions // self.positions_of_cell), self._cells.most_at_once)

    def passes(self) -> Iterator[tuple[int, ...]]:
        """The cells of each pass: those that change low layers first."""
        in_order = sorted(range(self.n_cells), key=self._cells.layers.__getitem__)
        for start in range(0, self.n_cells, self.cells_at_once):
            yield tuple(in_order[start : start + self.cells_at_once])

    def baselines(self) -> torch.Tensor:
        """Of the run with the sweep's own edits [metric row], float64."""
        if self._has_edits:
            return self._computed(self._cells.fixed_edits(), self._cells.fixed_layer, 1)[0]
        at = list(self.rows)
        left = Left(self._capture.residual_out[at, : self._n_pos], None, lambda site: self._base_at(site, 1))
        return self._measures.of(left, 1)[0]

    def measured(self, cells: Sequence[int]) -> torch.Tensor:
        """What these cells give [cell metric row], float64."""
        first = min(self._cells.fixed_layer, *(self._cells.layers[cell] for cell in cells))
        return self._computed(self._cells.edits(cells), first, len(cells))

    def _computed(self, edits: Sequence[Edit], first: int, n_cells: int) -> torch.Tensor:
        """By one pass, which begins with the first layer that is changed and ends with the last that is looked at."""
        self._model.edits.require_unchanged(self._capture.generation)
        made = EditedPass(self._model, edits)
        last = len(self._model.layers)
        start = first if first == last else start_of(self._model, first, self._capture, self._first_row)
        shown = {} if first == last else self._shown(made, start, n_cells)
        residual_out = self._output(shown, n_cells) if self._measures.needs_output else None
        scale = None if residual_out is None else made.final_scale(residual_out)

        def stream_at(site: Site) -> torch.Tensor:
            return self._stream_at(site, shown, n_cells, start)

        return self._measures.of(Left(residual_out, scale, stream_at), n_cells)

    def _shown(self, edits: EditedPass, start: int, n_cells: int) -> dict[Passing, torch.Tensor]:
        tokens, mask = self._tokens.repeat(n_cells, 1), self._mask.repeat(n_cells, 1)
        stream = None if start == 0 else self._repeated(self._capture.layers[start].residual_in, n_cells)
        stop = None if self._measures.needs_output else self._stop
        section = Section(frozenset(self._wanted()), start, stream, stop)
        rewrites = edits.rewrites(tokens.shape)
        return dict(self._model.section(tokens, mask, rewrites, section, self._capture.generation))

    @property
    def _stop(self) -> int | None:
        """The first layer that no metric needs, where none is of the model's output."""
        ends = [site.layer + (site.kind is not SiteKind.RESIDUAL_IN) for site in self._measures.sites]
        return max(ends) if max(ends) < len(self._model.layers) else None

    def _wanted(self) -> Iterator[Passing]:
        if self._measures.needs_output:
            yield Passing(len(self._model.layers) - 1, "residual_out")
        for site in self._measures.sites:
            names = {
                SiteKind.RESIDUAL_IN: ("residual_in",),
                SiteKind.RESIDUAL_OUT: ("residual_out",),
                SiteKind.RESIDUAL_AFTER_ATTN: ("residual_in", "attn_out"),
            }
            for name in names[site.kind]:
                yield Passing(site.layer, name)

    def _output(self, shown: dict[Passing, torch.Tensor], n_cells: int) -> torch.Tensor:
        found = shown.get(Passing(len(self._model.layers) - 1, "residual_out"))
        return self._repeated(self._capture.residual_out, n_cells) if found is None else self._shaped(found, n_cells)

    def _stream_at(self, site: Site, shown: dict[Passing, torch.Tensor], n_cells: int, start: int) -> torch.Tensor:
        """Below what is computed, it is the run's own."""
        if site.layer < start or not shown:
            return self._base_at(site, n_cells)
        if site.kind is not SiteKind.RESIDUAL_AFTER_ATTN:
            return self._shaped(shown[Passing(site.layer, site.kind.value)], n_cells)
        middle = shown.get(Passing(site.layer, "residual_mid"))
        if middle is None:
            parts = (shown[Passing(site.layer, name)] for name in ("residual_in", "attn_out"))
            one, other = (self._shaped(part, n_cells) for part in parts)
            return one + other.to(one.device)
        return self._shaped(middle, n_cells)

    def _shaped(self, tensor: torch.Tensor, n_cells: int) -> torch.Tensor:
        """[cell*row pos d_model]"""
        return tensor.reshape(n_cells * len(self.rows), self._n_pos, -1)

    def _base_at(self, site: Site, n_cells: int) -> torch.Tensor:
        return self._repeated(captured(self._model, self._values, site), n_cells)

    def _repeated(self, tensor: torch.Tensor, n_cells: int) -> torch.Tensor:
        """A tensor of the run [batch pos ...], of the rows of each cell."""
        rows = tensor[list(self.rows), : self._n_pos]
        return rows.repeat(n_cells, *[1] * (rows.ndim - 1))

    @property
    def _first_row(self) -> Batch:
        """Of the run, without padding."""
        n_tokens = int(self._capture.mask[0].sum())
        return Batch(self._capture.tokens[:1, :n_tokens], self._capture.mask[:1, :n_tokens])
