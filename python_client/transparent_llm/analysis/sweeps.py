"""Sweeps: the same change at many places, one at a time, and what each does to a number.

They are computed next to the weights: see `sweep_cells.Sweep`, of which these are the usual ones. Activation patching
as in Meng et al., Locating and Editing Factual Associations in GPT (2022), and TransformerLens' `patching`; ablation
sets what is there to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.metrics import Metric, entropy
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.analysis.sweep_cells import Cell, Sweep, Sweepable
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    Intervention,
    Site,
    attn_out,
    ffn_out,
    head,
    key,
    neurons,
    patch,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    value,
    zero,
)
from transparent_llm.runtime.indexing import integer

__all__ = ["Metric", "Places", "ablation_sweep", "ablation_sweep_by_part", "patch_sweep", "patch_sweep_by_part"]

OfPositions = Literal["residual_in", "residual_after_attn", "residual_out", "attn_out", "ffn_out"]
OfHeads = Literal["head", "pattern", "query", "key", "value"]
Places = OfPositions | OfHeads | Literal["neurons"]

SITES_BY_PLACES: dict[str, Callable[[int], Site]] = {
    "residual_in": residual_in,
    "residual_after_attn": residual_after_attn,
    "residual_out": residual_out,
    "attn_out": attn_out,
    "ffn_out": ffn_out,
}
_OF_HEADS: dict[str, Callable[[int, int], Site]] = {
    "head": head,
    "pattern": pattern,
    "query": query,
    "key": key,
    "value": value,
}
_ALL = (*get_args(OfPositions), *get_args(OfHeads), "neurons")


def patch_sweep(
    clean: TransparentLlm,
    corrupt: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    clean_row: int = 0,
    corrupt_row: int = 0,
    layer: int | None = None,
    units: Iterable[int] | None = None,
    progress: bool | Report | None = None,
) -> Labelled:
    """What the metric of the corrupt row becomes where one place has what the clean row had there.

    Args:
        clean: An object whose current run has the clean row.
        corrupt: An object of the same model whose current run, without edits, has the corrupt row, of as many tokens.
        places: A site of the stream or a branch: each layer and position [layer pos]. "head", "pattern" or "query":
            each layer and head at all positions [layer head]; "key" and "value": those that query heads share
            [layer kv_head]. "neurons": each of `units` of one layer at all positions [neuron].
        metric: What is measured: see `metrics`.
        clean_row: Of the clean run.
        corrupt_row: Of the corrupt run.
        layer: This one alone. None: all; neurons need one.
        units: Positions, heads or neurons that are swept. None: all; neurons need some.
        progress: A bar (True), none (False), one if someone watches (None), or a function called with the cells that
            are done, and all of them.

    Returns:
        `value`: the metric; `score`: (value - corrupt) / (clean - corrupt), 1 where it is what the clean row has; NaN
        where both rows have the same. The title says both.

    Raises:
        InvalidRequestError: rows of different length, another choice of places, or a run that was edited.
        NotSupportedError: the model has nothing there, or runs of it cannot be edited.
        TooLargeError: more than the server computes in one sweep.
    """
    *_, last = patch_sweep_by_part(
        clean,
        corrupt,
        places,
        metric,
        clean_row=clean_row,
        corrupt_row=corrupt_row,
        layer=layer,
        units=units,
        progress=progress,
    )
    return last


def patch_sweep_by_part(
    clean: TransparentLlm,
    corrupt: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    clean_row: int = 0,
    corrupt_row: int = 0,
    layer: int | None = None,
    units: Iterable[int] | None = None,
    progress: bool | Report | None = None,
) -> Iterator[Labelled]:
    """As `patch_sweep`, but given again and again as it grows: what has not come is NaN. A loop that is left ends the
    work."""
    source, target = Row.of(clean, clean_row), Row.of(corrupt, corrupt_row)
    if source.n_tokens != target.n_tokens:
        raise InvalidRequestError(
            f"the clean row has {source.n_tokens} tokens, the corrupt one {target.n_tokens}: they must have as many, "
            "so that each position has one to be taken from"
        )
    grid = _Grid.of(corrupt, target, places, layer, units)
    rows, all_positions = [target.index], list(range(target.n_tokens))
    template = patch(grid.site, clean, positions=all_positions, rows=rows, source_rows=[source.index])
    of_clean = _measured(clean, source, metric)
    for values, baseline in _swept(corrupt, target, grid, template, metric, progress):
        span = of_clean - baseline
        score = (values - baseline) / (span if span else float("nan"))
        said = f"clean {of_clean:.4g}, corrupt {baseline:.4g}"
        yield grid.labelled(f"{metric.measure} with one {places} of the clean row ({said})", value=values, score=score)


def ablation_sweep(
    llm: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    batch_i: int = 0,
    layer: int | None = None,
    units: Iterable[int] | None = None,
    progress: bool | Report | None = None,
) -> Labelled:
    """What the metric of a row of the current run becomes where one place is 0: places as in `patch_sweep`.

    Returns:
        `value`: the metric; `change`: less what it is without an ablation, which the title says.

    Raises: as `patch_sweep`.
    """
    *_, last = ablation_sweep_by_part(llm, places, metric, batch_i=batch_i, layer=layer, units=units, progress=progress)
    return last


def ablation_sweep_by_part(
    llm: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    batch_i: int = 0,
    layer: int | None = None,
    units: Iterable[int] | None = None,
    progress: bool | Report | None = None,
) -> Iterator[Labelled]:
    """As `ablation_sweep`, but given again and again as it grows: what has not come is NaN. A loop that is left ends
    the work."""
    row = Row.of(llm, batch_i)
    grid = _Grid.of(llm, row, places, layer, units)
    for values, baseline in _swept(llm, row, grid, zero(grid.site, rows=[row.index]), metric, progress):
        title = f"{metric.measure} without one {places} (with all {baseline:.4g})"
        yield grid.labelled(title, value=values, change=values - baseline)


def _swept(
    llm: TransparentLlm,
    row: Row,
    grid: _Grid,
    template: Intervention,
    metric: Metric,
    progress: bool | Report | None,
) -> Iterator[tuple[torch.Tensor, float]]:
    """The metric of all cells, NaN where it has not come, and without the change."""
    sweep = Sweep((template,), grid.cells, (metric.of_ids(llm, row.index),), rows=(row.index,))
    values, baseline = torch.full((len(grid.cells),), torch.nan, dtype=torch.float64), float("nan")
    with Bar("sweep", "cells", len(grid.cells), progress) as bar:
        for part in sweepable(llm).sweep(sweep):
            if part.baselines is not None:
                baseline = float(part.baselines[0, 0])
            values[list(part.cells)] = part.values[:, 0, 0]
            bar.add(len(part.cells))
            yield values.reshape(grid.shape).clone(), baseline


def _measured(llm: TransparentLlm, row: Row, metric: Metric) -> float:
    """Of the run as it is: what a sweep says of it before its cells."""
    nothing = Cell(layer=llm.model_info().n_layers - 1, positions=(row.n_tokens - 1,))
    asked = metric.of_ids(llm, row.index)
    sweep = Sweep((zero(residual_out(-1), rows=[row.index]),), (nothing,), (asked,), rows=(row.index,))
    part = next(iter(sweepable(llm).sweep(sweep)))
    assert part.baselines is not None  # of the first
    return float(part.baselines[0, 0])


def sweepable(llm: TransparentLlm) -> Sweepable:
    """The object, if runs of it can be swept."""
    if not isinstance(llm, Sweepable):
        raise NotSupportedError(f"runs of {type(llm).__name__} cannot be edited")
    return llm


def _n_heads(llm: TransparentLlm, row: Row, places: str) -> int:
    """Of a layer; of keys and values there are fewer where query heads share them, which is found out by asking."""
    n_heads = llm.model_info().n_heads
    if places not in ("key", "value"):
        return n_heads
    last = zero(_OF_HEADS[places](0, n_heads - 1), rows=[row.index])
    try:
        sweepable(llm).plan_sweep(Sweep((last,), (Cell(),), (entropy(),), rows=(row.index,)))
    except IndexOutOfRangeError as error:
        return int(error.metadata["size"])
    return n_heads


@dataclass(frozen=True)
class _Grid:
    """The places of a sweep."""

    site: Site
    """Of the template."""

    cells: tuple[Cell, ...]
    axes: tuple[Axis, ...]

    @classmethod
    def of(cls, llm: TransparentLlm, row: Row, places: str, layer: int | None, units: Iterable[int] | None) -> _Grid:
        checked_choice("places", places, _ALL)
        layers = range(llm.model_info().n_layers) if layer is None else [layer_of(llm, layer)]
        chosen = None if units is None else [integer("units", unit) for unit in units]
        if chosen is not None and not chosen:
            raise InvalidRequestError("units is empty: name at least one, or leave it out for all")
        of_layers = Axis("layer", layers)
        if places == "neurons":
            if layer is None or chosen is None:
                raise InvalidRequestError("a sweep over neurons is of one layer and some of its neurons: give both")
            cells = tuple(Cell(layer=layers[0], neurons=(unit,)) for unit in chosen)
            return cls(neurons(layers[0], [chosen[0]]), cells, (Axis("neuron", chosen),))
        if places in _OF_HEADS:
            n_heads = _n_heads(llm, row, places)
            name = "head" if n_heads == llm.model_info().n_heads else "kv_head"
            heads = range(n_heads) if chosen is None else chosen
            cells = tuple(Cell(layer=each, head=head) for each in layers for head in heads)
            return cls(_OF_HEADS[places](0, 0), cells, (of_layers, Axis(name, heads)))
        positions = range(row.n_tokens) if chosen is None else [row.position(unit) for unit in chosen]
        words = row.words(llm)
        cells = tuple(Cell(layer=each, positions=(position,)) for each in layers for position in positions)
        of_positions = Axis("pos", positions, {"token": [words[position] for position in positions]})
        return cls(SITES_BY_PLACES[places](0), cells, (of_layers, of_positions))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.axes))

    def labelled(self, title: str, **tensors: torch.Tensor) -> Labelled:
        """With its axes."""
        names = tuple(axis.name for axis in self.axes)
        return Labelled(title, self.axes, {name: OnAxes(one, names) for name, one in tensors.items()})
