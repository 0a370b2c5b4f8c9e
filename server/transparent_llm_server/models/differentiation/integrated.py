"""Integrated gradients (Sundararajan et al., 2017) by the embedding, along the straight way from a baseline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from transparent_llm.analysis.differentiation import Gradients, IntegratedGradients, Path
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.differentiation.graph import Graph
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.sources import Sources

_EMBEDDING = Passing(0, "residual_in")


class IntegratedPath:
    """Of one metric of some rows. `begin`, then `add` all parts.

    Raises:
        IndexOutOfRangeError: no such token.
        InvalidRequestError: a run of other rows is the baseline.
    """

    def __init__(self, graph: Graph, path: Path, sources: Sources) -> None:
        self._graph, self._path, self._model = graph, path, graph.model
        points, weights = np.polynomial.legendre.leggauss(path.steps)
        self._nodes = [(float(x + 1) / 2, float(w) / 2) for x, w in zip(points, weights, strict=True)]
        self._end = wide(graph.rows.of_run(graph.rows.values.capture.layers[0].residual_in))
        self._sum = torch.zeros_like(self._end)
        self._token: int | None = None
        self._start: torch.Tensor | None = None
        if isinstance(path.baseline, int):
            self._token = checked_index("token", path.baseline, self._model.d_vocab)
        elif isinstance(path.baseline, str):
            self._start = torch.zeros_like(self._end)
        else:
            self._start = wide(self._of_run(sources, path))

    def begin(self) -> None:
        """Find the baseline, and the metric at both ends."""
        if self._token is not None:
            self._start = wide(self._of_token(self._token))
        assert self._start is not None
        self._baseline_metric = self._graph.metric_at(self._start)
        self._metric = self._graph.metric_at(self._end)

    def parts(self, at_once: int) -> Iterator[Sequence[tuple[float, float]]]:
        """Nodes with their weights, so many at a time."""
        for start in range(0, len(self._nodes), at_once):
            yield self._nodes[start : start + at_once]

    def add(self, nodes: Sequence[tuple[float, float]]) -> None:
        """The gradients at some nodes."""
        assert self._start is not None  # it has begun
        way = self._end - self._start
        entering = torch.cat([self._start + node * way for node, _ in nodes])
        gradient = self._graph.passed({_EMBEDDING}, 0, entering, len(nodes)).gradients[_EMBEDDING]
        by_node = wide(gradient).reshape(len(nodes), *self._end.shape)
        for (_, weight), of_node in zip(nodes, by_node, strict=True):
            self._sum += weight * of_node.to(self._sum.device)

    def result(self) -> Gradients:
        """After all nodes.

        Raises:
            NotSupportedError: a gradient was not finite.
        """
        assert self._start is not None  # it has begun
        mask = self._graph.rows.mask.to(self._sum.device)[..., None]
        values = torch.where(mask, (self._end - self._start) * self._sum, 0.0)
        if not bool(values.isfinite().all()):
            raise NotSupportedError(
                f"the gradient along this path is not finite in {self._model.dtype}: load the model in float32 or "
                "bfloat16, or choose another baseline"
            )
        delta = values.double().sum(dim=(1, 2)).cpu() - (self._metric - self._baseline_metric)
        return Gradients(self._metric, (), IntegratedGradients(self._baseline_metric, delta, values.float()))

    def _of_token(self, token: int) -> torch.Tensor:
        """What enters the first block, where all tokens are this one."""
        rows = self._graph.rows
        section, generation = Section(frozenset(), stop=0), rows.values.capture.generation
        shown = self._model.section(torch.full_like(rows.tokens, token), rows.mask, {}, section, generation)
        return shown[_EMBEDDING].reshape(self._end.shape)

    def _of_run(self, sources: Sources, path: Path) -> torch.Tensor:
        rows, values = self._graph.rows, sources.values(path.baseline)  # type: ignore[arg-type]  # neither word nor id
        lengths, needed = (found.mask().tensor().sum(dim=1).tolist() for found in (values, rows.values))
        if lengths != needed:
            raise InvalidRequestError(
                f"the run that is the baseline has rows of {lengths[:10]} tokens, the run {needed[:10]}"
            )
        return rows.of_run(values.capture.layers[0].residual_in)
