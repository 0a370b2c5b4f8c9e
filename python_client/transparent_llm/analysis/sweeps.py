"""Sweeps: the same change at many places, one at a time, and what each does to a number.

Each cell is a row of its own of a shared run, with one edit; so a grid takes a run for some dozens of cells, and of
each only the scores that the metric needs are read. Activation patching as in Meng et al., Locating and Editing Factual
Associations in GPT (2022), and TransformerLens' `patching`; ablation sets what is there to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.progress import Bar, Report
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.token_names import token_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import (
    Intervention,
    Site,
    attn_out,
    ffn_out,
    head,
    patch,
    pattern,
    residual_after_attn,
    residual_in,
    residual_out,
    zero,
)
from transparent_llm.interventions.own import Editable
from transparent_llm.runtime.numerics import wide

Places = Literal["residual_in", "residual_after_attn", "residual_out", "attn_out", "ffn_out", "head", "pattern"]
Measure = Literal["logit", "logprob", "prob"]

_MOST_CELLS = 64
"""Of one run: edits of one run are bounded."""

_MOST_POSITIONS = 4096
"""Of one run."""

_Cell = tuple[int, int]

_OF_POSITIONS: dict[str, Callable[[int], Site]] = {
    "residual_in": residual_in,
    "residual_after_attn": residual_after_attn,
    "residual_out": residual_out,
    "attn_out": attn_out,
    "ffn_out": ffn_out,
}
_OF_HEADS: dict[str, Callable[[int, int], Site]] = {"head": head, "pattern": pattern}


@dataclass(frozen=True)
class Metric:
    """A number of a row's output at one position: of a token, or of one less another."""

    token: int | str
    """An id, or a text that is one token."""

    minus: int | str | None = None
    """Of this token less."""

    pos: int = -1
    """Of the row; negative ones count from its last token."""

    measure: Measure = "logit"
    """The logit, the log-probability (natural), or the probability."""


def patch_sweep(
    clean: TransparentLlm,
    corrupt: TransparentLlm,
    places: Places,
    metric: Metric,
    *,
    clean_row: int = 0,
    corrupt_row: int = 0,
    progress: bool | Report | None = None,
) -> Labelled:
    """What the metric of the corrupt row becomes where one place has what the clean row had there.

    Args:
        clean: An object whose current run has the clean row.
        corrupt: An object of the same model whose current run has the corrupt row, of as many tokens.
        places: A site of the stream or a branch: each layer and position [layer pos]; "head" or "pattern": each layer
            and head at all positions [layer head].
        metric: What is measured.
        clean_row: Of the clean run.
        corrupt_row: Of the corrupt run.
        progress: A bar (True), none (False), one if someone watches (None), or a function called with the cells that
            are done, and all of them.

    Returns:
        `value`: the metric [layer pos] or [layer head]; `score`: (value - corrupt) / (clean - corrupt), 1 where it is
        what the clean row has; NaN where both rows have the same. The title says both.

    Raises:
        InvalidRequestError: rows of different length, or another choice of places or measure.
        NotSupportedError: the model has nothing there, or runs of it cannot be edited.
    """
    source, target = Row.of(clean, clean_row), Row.of(corrupt, corrupt_row)
    if source.n_tokens != target.n_tokens:
        raise InvalidRequestError(
            f"the clean row has {source.n_tokens} tokens, the corrupt one {target.n_tokens}: they must have as many, "
            "so that each position has one to be taken from"
        )
    same = list(range(target.n_tokens))

    def edit(site: Site, positions: list[int], cell_row: int) -> Intervention:
        return patch(
            site,
            clean,
            positions=positions,
            rows=[cell_row],
            source_rows=[source.index],
            source_positions=positions,
        )

    sweep = _Sweep(corrupt, target, metric, checked_choice("places", places, (*_OF_POSITIONS, *_OF_HEADS)), same)
    ids = clean.tokens()[source.index, : source.n_tokens].tolist()
    baselines = {"clean": sweep.measured([ids], [])[0], "corrupt": sweep.measured([sweep.token_ids], [])[0]}
    values = sweep.values(edit, progress)
    span = baselines["clean"] - baselines["corrupt"]
    score = (values - baselines["corrupt"]) / (span if span else float("nan"))
    said = ", ".join(f"{name} {float(value):.4g}" for name, value in baselines.items())
    return sweep.labelled(f"{metric.measure} with one {places} of the clean row ({said})", value=values, score=score)


def ablation_sweep(
    llm: TransparentLlm, places: Places, metric: Metric, *, batch_i: int = 0, progress: bool | Report | None = None
) -> Labelled:
    """What the metric of a row of the current run becomes where one place is 0: places as in `patch_sweep`.

    Returns:
        `value`: the metric; `change`: less what it is without an ablation, which the title says.

    Raises:
        InvalidRequestError: another choice of places or measure.
        NotSupportedError: the model has nothing there, or runs of it cannot be edited.
    """
    row = Row.of(llm, batch_i)
    checked = checked_choice("places", places, (*_OF_POSITIONS, *_OF_HEADS))
    sweep = _Sweep(llm, row, metric, checked, list(range(row.n_tokens)))
    baseline = sweep.measured([sweep.token_ids], [])[0]
    values = sweep.values(lambda site, positions, cell_row: zero(site, positions=positions, rows=[cell_row]), progress)
    title = f"{metric.measure} without one {places} (with all {float(baseline):.4g})"
    return sweep.labelled(title, value=values, change=values - baseline)


class _Sweep:
    """Over the places of one row, on an object of its own."""

    def __init__(self, llm: TransparentLlm, row: Row, metric: Metric, places: str, positions: list[int]) -> None:
        if not isinstance(llm, Editable):
            raise NotSupportedError(f"runs of {type(llm).__name__} cannot be edited")
        checked_choice("measure", metric.measure, ("logit", "logprob", "prob"))
        self._llm, self._places, self._positions = llm.copy(), places, positions
        self._metric, self._pos = metric, row.position(metric.pos)
        wanted = [metric.token] if metric.minus is None else [metric.token, metric.minus]
        self._tokens = [token_of(llm, "token", token) for token in wanted]
        self._words = row.words(llm)
        self.token_ids: list[int] = llm.tokens()[row.index, : row.n_tokens].tolist()
        info = llm.model_info()
        across = info.n_heads if places in _OF_HEADS else row.n_tokens
        self._shape = (info.n_layers, across)

    def values(
        self, edit: Callable[[Site, list[int], int], Intervention], progress: bool | Report | None
    ) -> torch.Tensor:
        """The metric of each cell [layer pos] or [layer head]."""
        cells = [(layer, across) for layer in range(self._shape[0]) for across in range(self._shape[1])]
        at_once = max(1, min(_MOST_CELLS, _MOST_POSITIONS // len(self.token_ids)))
        found = []
        with Bar("sweep", "cells", len(cells), progress) as bar:
            for start in range(0, len(cells), at_once):
                part = cells[start : start + at_once]
                edits = [edit(*self._place(cell), row) for row, cell in enumerate(part)]
                found.append(self.measured([self.token_ids] * len(part), edits))
                bar.add(len(part))
        return torch.cat(found).reshape(self._shape)

    def measured(self, rows: list[list[int]], edits: Sequence[Intervention]) -> torch.Tensor:
        """The metric of each row of one run, which is not kept."""
        self._llm.run_tokens(rows, edits=edits)  # type: ignore[call-arg]  # it has edits
        values = self._scores()
        release = getattr(self._llm, "release", None)
        if release is not None:
            release()
        return values[:, 0] if len(self._tokens) == 1 else values[:, 0] - values[:, 1]

    def _scores(self) -> torch.Tensor:
        """Of the metric's tokens at its position [row token]. Where logits are enough, a server sends no others."""
        fetch, at = getattr(self._llm, "fetch", None), {"pos": slice(self._pos, self._pos + 1)}
        if fetch is not None and self._metric.measure == "logit":
            reads = [("logits", {**at, "d_vocab": slice(token, token + 1)}) for token in self._tokens]
            return torch.cat([wide(one)[:, 0] for one in fetch(reads)], dim=1)
        if fetch is not None:
            logits = wide(fetch([("logits", at)])[0])[:, 0]
        else:
            stream = self._llm.residual_out(-1)[:, self._pos]
            logits = torch.stack([wide(self._llm.unembed(vector, normalize=True)) for vector in stream])
        if self._metric.measure == "logit":
            return logits[:, self._tokens]
        logprobs = logits.log_softmax(dim=-1)[:, self._tokens]
        return logprobs.exp() if self._metric.measure == "prob" else logprobs

    def _place(self, cell: _Cell) -> tuple[Site, list[int]]:
        layer, across = cell
        if self._places in _OF_HEADS:
            return _OF_HEADS[self._places](layer, across), self._positions
        return _OF_POSITIONS[self._places](layer), [across]

    def labelled(self, title: str, **tensors: torch.Tensor) -> Labelled:
        """With its axes."""
        across = "head" if self._places in _OF_HEADS else "pos"
        labels: dict[str, Any] = {} if across == "head" else {"token": self._words}
        axes = (Axis("layer", range(self._shape[0])), Axis(across, range(self._shape[1]), labels))
        return Labelled(title, axes, {name: OnAxes(one, ("layer", across)) for name, one in tensors.items()})
