"""One pass that keeps its graph, and the way back: of what the metric of each row is made, and its gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm.analysis.differentiation import Frozen
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.differentiation.probes import Probes
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.passes import Rewrites, Section
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit
from transparent_llm_server.models.interventions.rewriting import EditedPass
from transparent_llm_server.models.interventions.sites import captured
from transparent_llm_server.models.sweeping.measures import Left, Measures, StreamAt
from transparent_llm_server.models.sweeping.starts import start_of

_STREAMS = {
    SiteKind.RESIDUAL_IN: ("residual_in",),
    SiteKind.RESIDUAL_OUT: ("residual_out",),
    SiteKind.RESIDUAL_AFTER_ATTN: ("residual_in", "attn_out"),
}


Use = Callable[[Mapping[Passing, torch.Tensor], Mapping[Passing, torch.Tensor]], None]
"""Of what is differentiated by, and the gradients."""


@dataclass(frozen=True)
class Rows:
    """Of a run, those that are differentiated."""

    values: RunValues
    indices: Sequence[int]
    tokens: torch.Tensor
    """[row pos]"""

    mask: torch.Tensor
    """[row pos]"""

    def of_run(self, tensor: torch.Tensor) -> torch.Tensor:
        """Of a tensor of the run [batch pos ...], these rows."""
        return tensor[list(self.indices), : self.tokens.shape[1]]


@dataclass(frozen=True)
class Passed:
    """What one pass gave."""

    metric: torch.Tensor
    """[copy row], float64 on the CPU."""

    points: Mapping[Passing, torch.Tensor]
    """What stood where it was differentiated, as it passed."""

    gradients: Mapping[Passing, torch.Tensor]
    """By these, in their shapes."""

    kept: Mapping[Passing, torch.Tensor]


@dataclass(frozen=True)
class _Shown:
    """What a pass has shown."""

    edited: EditedPass
    kept: Mapping[Passing, torch.Tensor]
    start: int
    """The first layer that it computed."""

    n_copies: int


@dataclass(frozen=True)
class Graph:
    """Of a metric of some rows."""

    model: BridgedModel
    rows: Rows
    measures: Measures
    frozen: Collection[Frozen]
    edits: Sequence[Edit] = ()
    """Of these rows, made in each pass."""

    def passed(
        self,
        wanted: Collection[Passing],
        start: int,
        put: Mapping[Passing, torch.Tensor] | None = None,
        n_copies: int = 1,
        use: Use | None = None,
    ) -> Passed:
        """There and back, of so many copies of the rows.

        Args:
            wanted: What is differentiated by, after its edits.
            start: The layer that the graph begins with.
            put: Tensors that stand in the places of the pass's own, of all copies.
            n_copies: One after the other.
            use: What goes further back by the graph, while it is there.

        Raises:
            NotFoundError: MODEL_CHANGED, as somebody has edited the model's weights since the run.
        """
        n_rows, n_pos = self.rows.tokens.shape
        begin = self._begin(start)
        with torch.enable_grad():
            probes = Probes(self.model, wanted, self.frozen, start, (n_copies * n_rows, n_pos), put)
            shown = self._shown(probes.rewrites(), begin, n_copies)
            metric = self._metric(shown, probes)
            points = {passing: probes.points[passing] for passing in wanted}
            gradients = _gradients(metric, points, is_kept=use is not None)
            if use is not None:
                use(points, gradients)
        self.model.edits.require_unchanged(self.rows.values.capture.generation)
        plain = ({passing: each.detach() for passing, each in found.items()} for found in (points, shown.kept))
        return Passed(metric.detach(), next(plain), gradients, next(plain))

    def measured(self, passing: Passing, put: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """What the metric is of each row [row], where a tensor stands in the place of the pass's own; and that one."""

        def look(tensor: torch.Tensor, kept: dict[Any, torch.Tensor]) -> torch.Tensor:
            kept[passing] = tensor if put is None else put.reshape(tensor.shape).to(tensor)
            return kept[passing]

        shown = self._shown({passing: look}, self._begin(passing.layer), 1)
        return self._metric(shown, None)[0], shown.kept[passing]

    def _begin(self, start: int) -> int:
        """The first layer that is computed, where the graph begins with this one."""
        layers = (each.site.layer for each in self.edits if each.site.kind is not SiteKind.FINAL_NORM_SCALE)
        capture = self.rows.values.capture
        n_tokens = int(capture.mask[0].sum())
        first_row = Batch(capture.tokens[:1, :n_tokens], capture.mask[:1, :n_tokens])
        return start_of(self.model, min((start, *layers)), capture, first_row)

    def _shown(self, after: Rewrites, start: int, n_copies: int) -> _Shown:
        capture, n_rows = self.rows.values.capture, len(self.rows.indices)
        tokens, mask = (each.repeat(n_copies, 1) for each in (self.rows.tokens, self.rows.mask))
        stream = None
        if start > 0:
            stream = self.rows.of_run(capture.layers[start].residual_in).repeat(n_copies, 1, 1)
        edited = EditedPass(self.model, [each.repeated(n_copies, n_rows) for each in self.edits], after=after)
        section = Section(frozenset(self._wanted(start)), start, stream)
        kept = self.model.section(tokens, mask, edited.rewrites(tokens.shape), section, capture.generation)
        return _Shown(edited, kept, start, n_copies)

    def _metric(self, shown: _Shown, probes: Probes | None) -> torch.Tensor:
        """[copy row]"""
        residual_out = self._shaped(shown.kept[Passing(len(self.model.layers) - 1, "residual_out")], shown.n_copies)
        scale = shown.edited.final_scale(residual_out)
        if scale is None and probes is not None:
            scale = probes.final_scale(residual_out)
        return self.measures.of(Left(residual_out, scale, self._stream_at(shown)), shown.n_copies)[:, 0]

    def _wanted(self, start: int) -> Iterator[Passing]:
        yield Passing(len(self.model.layers) - 1, "residual_out")
        for site in self.measures.sites:
            if site.layer >= start:
                yield from (Passing(site.layer, name) for name in _STREAMS[site.kind])

    def _stream_at(self, shown: _Shown) -> StreamAt:
        def stream_at(site: Site) -> torch.Tensor:
            """Below what is computed it is the run's own."""
            if site.layer < shown.start:
                found = self.rows.of_run(captured(self.model, self.rows.values, site))
                return found.repeat(shown.n_copies, 1, 1)
            middle = shown.kept.get(Passing(site.layer, "residual_mid"))
            if site.kind is SiteKind.RESIDUAL_AFTER_ATTN and middle is not None:
                return self._shaped(middle, shown.n_copies)
            parts = (shown.kept[Passing(site.layer, name)] for name in _STREAMS[site.kind])
            shaped = [self._shaped(part, shown.n_copies) for part in parts]
            return shaped[0] if len(shaped) == 1 else shaped[0] + shaped[1].to(shaped[0].device)

        return stream_at

    def _shaped(self, tensor: torch.Tensor, n_copies: int) -> torch.Tensor:
        """[copy*row pos d_model]"""
        n_rows, n_pos = self.rows.tokens.shape
        return tensor.reshape(n_copies * n_rows, n_pos, -1)


def _gradients(
    metric: torch.Tensor, points: Mapping[Passing, torch.Tensor], *, is_kept: bool
) -> dict[Passing, torch.Tensor]:
    """0 by what the metric does not depend on."""
    if not metric.requires_grad:
        return {passing: torch.zeros_like(point) for passing, point in points.items()}
    found = torch.autograd.grad(metric.sum(), list(points.values()), allow_unused=True, retain_graph=is_kept)
    pairs = zip(points.items(), found, strict=True)
    return {passing: torch.zeros_like(point) if gradient is None else gradient for (passing, point), gradient in pairs}
