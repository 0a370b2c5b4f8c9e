"""Integrated gradients (Sundararajan et al., 2017) along the straight way from a baseline to a site."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from transparent_llm.analysis.differentiation import Gradients, IntegratedGradients, Path, SiteGradient
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.differentiation.forms import Told
from transparent_llm_server.models.differentiation.graph import Graph
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.interventions.sites import captured
from transparent_llm_server.models.interventions.sources import Sources


class IntegratedPath:
    """Of one metric of some rows, at one site. `begin`, then `add` all parts.

    Raises:
        IndexOutOfRangeError: no such token, layer or head.
        NotSupportedError: the model has nothing at the site.
        InvalidRequestError: a run of other rows is the baseline.
    """

    def __init__(self, graph: Graph, path: Path, sources: Sources) -> None:
        self._graph, self._path, self._model = graph, path, graph.model
        told = Told.of(self._model, graph.rows, SiteGradient(path.site), sources)
        self._site, self.shape, self.passing = told.asked.site, told.shape, told.passing
        points, weights = np.polynomial.legendre.leggauss(path.steps)
        self._nodes = [(float(x + 1) / 2, float(w) / 2) for x, w in zip(points, weights, strict=True)]
        self._token: int | None = None
        self._run: torch.Tensor | None = None
        if isinstance(path.baseline, int):
            self._token = checked_index("token", path.baseline, self._model.d_vocab)
        elif not isinstance(path.baseline, str):
            self._run = self._of_run(sources, path)

    def begin(self) -> None:
        """Find both ends, and the metric there."""
        self._metric, self._whole = self._graph.measured(self.passing)
        self._end = wide(self._part(self._whole))
        self._start = torch.zeros_like(self._end)
        if self._token is not None:
            self._start = wide(self._part(self._of_token(self._token)))
        elif self._run is not None:
            self._start = wide(self._run).to(self._end.device)
        self._sum = torch.zeros_like(self._end)
        self._baseline_metric, _ = self._graph.measured(self.passing, self._put(self._start, 1))

    def parts(self, at_once: int) -> Iterator[Sequence[tuple[float, float]]]:
        """Nodes with their weights, so many at a time."""
        for start in range(0, len(self._nodes), at_once):
            yield self._nodes[start : start + at_once]

    def add(self, nodes: Sequence[tuple[float, float]]) -> None:
        """The gradients at some nodes."""
        way, n_nodes = self._end - self._start, len(nodes)
        put = self._put(torch.cat([self._start + node * way for node, _ in nodes]), n_nodes)
        passed = self._graph.passed({self.passing}, self.passing.layer, {self.passing: put}, n_nodes)
        by_node = wide(self._part(passed.gradients[self.passing], n_nodes)).reshape(n_nodes, *self._end.shape)
        for (_, weight), of_node in zip(nodes, by_node, strict=True):
            self._sum += weight * of_node.to(self._sum.device)

    def result(self) -> Gradients:
        """After all nodes.

        Raises:
            NotSupportedError: a gradient was not finite.
        """
        mask = self._graph.rows.mask.to(self._sum.device)[..., None]
        values = torch.where(mask, (self._end - self._start) * self._sum, 0.0)
        if not bool(values.isfinite().all()):
            raise NotSupportedError(
                f"the gradient along this path is not finite in {self._model.dtype}: load the model in float32 or "
                "bfloat16, or choose another baseline"
            )
        delta = values.double().sum(dim=(1, 2)).cpu() - (self._metric - self._baseline_metric)
        told = IntegratedGradients(self._baseline_metric, delta, values.float().reshape(self.shape))
        return Gradients(self._metric, (), told)

    def _part(self, whole: torch.Tensor, n_copies: int = 1) -> torch.Tensor:
        """Of what passes, what the path is at [copy*row pos d]."""
        n_rows, n_pos = self._graph.rows.tokens.shape
        shaped = whole.reshape(n_copies * n_rows, n_pos, -1)
        if self._site.head is None:
            return shaped
        return shaped.reshape(*shaped.shape[:2], self._model.n_heads, -1)[:, :, self._site.head]

    def _put(self, part: torch.Tensor, n_copies: int) -> torch.Tensor:
        """What passes, with this in the place of that."""
        if self._site.head is None:
            return part
        n_rows, n_pos = self._graph.rows.tokens.shape
        whole = self._whole.reshape(n_rows, n_pos, self._model.n_heads, -1).repeat(n_copies, 1, 1, 1)
        whole[:, :, self._site.head] = part.to(whole)
        return whole

    def _of_token(self, token: int) -> torch.Tensor:
        """What passes there, where all tokens are this one and nothing is edited."""
        rows, layer = self._graph.rows, self.passing.layer

        def look(tensor: torch.Tensor, kept: dict[Any, torch.Tensor]) -> torch.Tensor:
            kept[self.passing] = tensor
            return tensor

        stop = layer if self.passing.field == "residual_in" else layer + 1
        section = Section(frozenset(), stop=stop if stop < len(self._model.layers) else None)
        tokens, generation = torch.full_like(rows.tokens, token), rows.values.capture.generation
        shown = self._model.section(tokens, rows.mask, {self.passing: look}, section, generation)
        return shown[self.passing]

    def _of_run(self, sources: Sources, path: Path) -> torch.Tensor:
        rows, values = self._graph.rows, sources.values(path.baseline)  # type: ignore[arg-type]  # neither word nor id
        lengths, needed = (found.mask().tensor().sum(dim=1).tolist() for found in (values, rows.values))
        if lengths != needed:
            raise InvalidRequestError(
                f"the run that is the baseline has rows of {lengths[:10]} tokens, the run {needed[:10]}"
            )
        return rows.of_run(captured(self._model, values, self._site))
