"""One pass that keeps its graph, and the way back: of what the metric of each row is made, and its gradients."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from transparent_llm.analysis.differentiation import Frozen
from transparent_llm.interventions.site import Site, SiteKind
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.differentiation.probes import Probes
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.sites import captured
from transparent_llm_server.models.sweeping.measures import Left, Measures, StreamAt

_STREAMS = {
    SiteKind.RESIDUAL_IN: ("residual_in",),
    SiteKind.RESIDUAL_OUT: ("residual_out",),
    SiteKind.RESIDUAL_AFTER_ATTN: ("residual_in", "attn_out"),
}


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
class Graph:
    """Of a metric of some rows."""

    model: BridgedModel
    rows: Rows
    measures: Measures
    frozen: Collection[Frozen]

    def passed(
        self, wanted: Collection[Passing], start: int, entering: torch.Tensor | None = None, n_copies: int = 1
    ) -> Passed:
        """There and back, of so many copies of the rows.

        Args:
            wanted: What is differentiated by.
            start: The first layer that is computed.
            entering: The stream that enters it [copy*row pos d_model]; None: that of the run.
            n_copies: One after the other.

        Raises:
            NotFoundError: MODEL_CHANGED, as somebody has edited the model's weights since the run.
        """
        capture = self.rows.values.capture
        tokens, mask = (each.repeat(n_copies, 1) for each in (self.rows.tokens, self.rows.mask))
        stream = None if start == 0 else self.rows.of_run(capture.layers[start].residual_in)
        section = Section(frozenset(self._wanted(start)), start, stream)
        with torch.enable_grad():
            probes = Probes(self.model, wanted, self.frozen, start, tokens.shape, entering)
            shown = self.model.section(tokens, mask, probes.rewrites(), section, capture.generation)
            residual_out = self._shaped(shown[Passing(len(self.model.layers) - 1, "residual_out")], n_copies)
            left = Left(residual_out, probes.final_scale(residual_out), self._stream_at(shown, start, n_copies))
            metric = self.measures.of(left, n_copies)[:, 0]
            points = {passing: probes.points[passing] for passing in wanted}
            gradients = _gradients(metric, points)
        self.model.edits.require_unchanged(capture.generation)
        plain = ({passing: each.detach() for passing, each in found.items()} for found in (points, shown))
        return Passed(metric.detach(), next(plain), gradients, next(plain))

    def metric_at(self, entering: torch.Tensor) -> torch.Tensor:
        """What the metric is of each row [row], where this stream enters the model [row pos d_model]."""
        section = Section(frozenset(self._wanted(0)))
        first = Passing(0, "residual_in")
        rewrites = {first: lambda tensor, kept: kept.setdefault("embedding", entering.reshape(tensor.shape).to(tensor))}
        generation = self.rows.values.capture.generation
        shown = dict(self.model.section(self.rows.tokens, self.rows.mask, rewrites, section, generation))
        shown[first] = shown.pop("embedding")  # type: ignore[call-overload]  # the key that the rewrite has put there
        residual_out = self._shaped(shown[Passing(len(self.model.layers) - 1, "residual_out")], 1)
        return self.measures.of(Left(residual_out, None, self._stream_at(shown, 0, 1)), 1)[0, 0]

    def _wanted(self, start: int) -> Iterator[Passing]:
        yield Passing(len(self.model.layers) - 1, "residual_out")
        for site in self.measures.sites:
            if site.layer >= start:
                yield from (Passing(site.layer, name) for name in _STREAMS[site.kind])

    def _stream_at(self, shown: Mapping[Passing, torch.Tensor], start: int, n_copies: int) -> StreamAt:
        def stream_at(site: Site) -> torch.Tensor:
            """Below what is computed it is the run's own."""
            if site.layer < start:
                found = self.rows.of_run(captured(self.model, self.rows.values, site))
                return found.repeat(n_copies, 1, 1)
            parts = (shown[Passing(site.layer, name)] for name in _STREAMS[site.kind])
            shaped = [self._shaped(part, n_copies) for part in parts]
            return shaped[0] if len(shaped) == 1 else shaped[0] + shaped[1].to(shaped[0].device)

        return stream_at

    def _shaped(self, tensor: torch.Tensor, n_copies: int) -> torch.Tensor:
        """[copy*row pos d_model]"""
        n_rows, n_pos = self.rows.tokens.shape
        return tensor.reshape(n_copies * n_rows, n_pos, -1)


def _gradients(metric: torch.Tensor, points: Mapping[Passing, torch.Tensor]) -> dict[Passing, torch.Tensor]:
    """0 by what the metric does not depend on."""
    if not metric.requires_grad:
        return {passing: torch.zeros_like(point) for passing, point in points.items()}
    found = torch.autograd.grad(metric.sum(), list(points.values()), allow_unused=True)
    pairs = zip(points.items(), found, strict=True)
    return {passing: torch.zeros_like(point) if gradient is None else gradient for (passing, point), gradient in pairs}
