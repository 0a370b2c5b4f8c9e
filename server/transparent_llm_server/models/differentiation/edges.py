"""Edges between parts of a model, by attribution patching (Syed et al., 2023; along a path: Hanna et al., 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch

from transparent_llm.analysis.differentiation import EDGE_DIMS, Edges, EdgeScores, Gradients, SiteGradient
from transparent_llm.errors import NotSupportedError
from transparent_llm.interventions import ffn_out, head, residual_in
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.differentiation.forms import Told
from transparent_llm_server.models.differentiation.graph import Graph
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.sites import captured
from transparent_llm_server.models.interventions.sources import Sources

_Tensors = Mapping[Passing, torch.Tensor]
_EMBEDDING = Passing(0, "residual_in")


class AttributedEdges:
    """Of one metric of some rows. All `steps`, then there is a `result`.

    Raises:
        NotSupportedError: a layer has no heads, or branches that do not show.
        InvalidRequestError: rows of the other run that have other numbers of tokens.
        IndexOutOfRangeError: they are not there.
    """

    def __init__(self, graph: Graph, asked: Edges, sources: Sources) -> None:
        self._graph, self._asked, self._model = graph, asked, graph.model
        layers = self._model.layers
        if any(not layer.has_heads or "ffn_out" not in layer.hooks for layer in layers):
            raise NotSupportedError("edges are between heads and feed-forward parts, which not all layers show")
        if len({layer.n_kv_heads for layer in layers}) > 1:
            raise NotSupportedError("edges are of layers that have as many keys and values each")
        by_embedding = SiteGradient(residual_in(0), "times_difference", asked.source, asked.source_rows)
        self._other, self._other_rows = Told.of(self._model, graph.rows, by_embedding, sources).of_other()
        n_senders = 1 + len(layers) * (self._model.n_heads + 1)
        self._sizes = {"batch": len(graph.rows.indices), "sender": n_senders, "layer": len(layers)}
        self._sizes |= {"head": self._model.n_heads, "kv_head": layers[0].n_kv_heads}
        self._moved: list[torch.Tensor] = []
        self._scores = {
            name: torch.zeros(shape, dtype=torch.float32, device="cpu")
            for name, shape in zip(EDGE_DIMS, self.shapes, strict=True)
        }
        self._metric = torch.zeros(0)

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the tensors of the answer."""
        return [tuple(self._sizes[axis] for axis in dims) for dims in EDGE_DIMS.values()]

    @property
    def nbytes(self) -> int:
        """Of what senders add, and the gradients by the stream of the receivers of one layer."""
        n_held = self._sizes["sender"] + 3 * self._model.n_heads + 8
        return n_held * self._graph.rows.tokens.numel() * self._model.d_model * torch.float32.itemsize

    def steps(self) -> Iterator[Callable[[], None]]:
        """One pass there and back each."""
        if self._asked.steps == 0:
            yield partial(self._add, None, 1.0)
        else:
            points, weights = np.polynomial.legendre.leggauss(self._asked.steps)
            for point, weight in zip(points, weights, strict=True):
                yield partial(self._add, float(point + 1) / 2, float(weight) / 2)

    def result(self) -> Gradients:
        """After all steps.

        Raises:
            NotSupportedError: a score is not finite.
        """
        if not all(bool(scores.isfinite().all()) for scores in self._scores.values()):
            raise NotSupportedError(
                f"the scores of edges are not finite in {self._model.dtype}: load the model in float32 or bfloat16"
            )
        return Gradients(self._metric, (), edges=EdgeScores(**self._scores))

    def _add(self, node: float | None, weight: float) -> None:
        """The scores by gradients of the run, or at a node of the way."""
        self._moved = self._moved or list(self._differences())
        put = {}
        if node is not None:
            own = wide(self._graph.rows.of_run(self._graph.rows.values.capture.layers[0].residual_in))
            put = {_EMBEDDING: own + node * self._moved[0][0].to(own.device)}
        last = Passing(len(self._model.layers) - 1, "residual_out")
        wanted = {last}
        for i, layer in enumerate(self._model.layers):
            names = ("residual_in", "query", "key", "value", "ffn_out", *(() if layer.is_parallel else ("attn_added",)))
            wanted |= {Passing(i, name) for name in names}
        passed = self._graph.passed(wanted, 0, put, use=partial(self._score, weight))
        if node is None:
            self._metric = passed.metric[0]
        elif not len(self._metric):
            self._metric, _ = self._graph.measured(_EMBEDDING)

    def _score(self, weight: float, points: _Tensors, gradients: _Tensors) -> None:
        last = Passing(len(self._model.layers) - 1, "residual_out")
        self._receive("logits", None, [gradients[last]], self._sizes["sender"], weight)
        for i, layer in enumerate(self._model.layers):
            stream = points[Passing(i, "residual_in")]
            before = 1 + i * (self._model.n_heads + 1)
            for name in ("query", "key", "value"):
                at = Passing(i, name)
                by_head = [_back(points[at], stream, part) for part in self._by_head(i, name, gradients[at])]
                self._receive(name, i, by_head, before, weight)
            middle = stream if layer.is_parallel else points[Passing(i, "attn_added")]
            n_before = before if layer.is_parallel else before + self._model.n_heads
            at = Passing(i, "ffn_out")
            self._receive("ffn", i, [_back(points[at], middle, gradients[at])], n_before, weight)

    def _by_head(self, index: int, name: str, gradient: torch.Tensor) -> Iterator[torch.Tensor]:
        """Of what passes, that of each head alone."""
        n_rows, n_pos = self._graph.rows.tokens.shape
        axis = 2 if name == "value" else 1

        def shaped(tensor: torch.Tensor) -> torch.Tensor:
            return self._model.layers[index].shaped("value", tensor, (n_rows, n_pos)) if name == "value" else tensor

        for n in range(shaped(gradient).shape[axis]):
            alone = torch.zeros(gradient.shape, dtype=gradient.dtype, device=gradient.device)
            shaped(alone).select(axis, n).copy_(shaped(gradient).select(axis, n))
            yield alone

    def _receive(
        self, name: str, layer: int | None, by_receiver: Sequence[torch.Tensor], n_before: int, weight: float
    ) -> None:
        """Of some receivers, gradients by the stream that they read, and the senders that come before them."""
        n_rows, n_pos = self._graph.rows.tokens.shape
        gradients = torch.stack([wide(each).reshape(n_rows, n_pos, -1) for each in by_receiver])
        mask = self._graph.rows.mask.to(gradients.device)[None, ..., None]
        gradients = torch.where(mask, gradients, 0.0)
        moved = [part.to(gradients.device) for part in self._moved]
        found = torch.cat([torch.einsum("sbpd,rbpd->bsr", part, gradients) for part in moved], dim=1)[:, :n_before]
        scores = self._scores[name] if layer is None else self._scores[name][:, :, layer]
        scores = scores if name in ("query", "key", "value") else scores[..., None]
        scores[:, :n_before] += weight * found.float().cpu()

    def _differences(self) -> Iterator[torch.Tensor]:
        """What senders add to the stream in the other run, less what they add in this one [sender row pos d_model]."""
        yield self._moved_at(residual_in(0))[None]
        for i, layer in enumerate(self._model.layers):
            z = self._moved_at(head(i)).unflatten(2, (self._model.n_heads, -1))  # type: ignore[no-untyped-call]
            added = torch.einsum("bphd,hdm->hbpm", z, wide(layer.w_o).to(z.device))
            yield torch.stack([self._through_norm(i, each) for each in added]) * (layer.multiplier or 1.0)
            yield self._moved_at(ffn_out(i))[None]

    def _through_norm(self, index: int, added: torch.Tensor) -> torch.Tensor:
        """What becomes, to first order, of what a head adds, in the norm between attention and the stream."""
        layer, rows = self._model.layers[index], self._graph.rows
        module = layer.norms.get("attn_post")
        if module is None:
            return added
        z = rows.of_run(captured(self._model, rows.values, head(index)))
        given = wide(layer.output_projection(z))
        norm = layer.norm("attn_post")
        if "norm_scales" in self._graph.frozen:
            assert norm is not None  # it was frozen in the pass
            return (
                wide(module.forward(added) - module.forward(torch.zeros_like(added)))
                * norm.scale(added)
                / norm.scale(given)
            )
        _, moved = torch.autograd.functional.jvp(module.forward, given, added)  # type: ignore[no-untyped-call]
        return wide(moved)

    def _moved_at(self, site: object) -> torch.Tensor:
        rows = self._graph.rows
        own = wide(rows.of_run(captured(self._model, rows.values, site)))  # type: ignore[arg-type]
        theirs = captured(self._model, self._other, site)[self._other_rows, : own.shape[1]]  # type: ignore[arg-type]
        return torch.where(rows.mask.to(own.device)[..., None], wide(theirs).to(own.device) - own, 0.0)


def _back(reached: torch.Tensor, stream: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """A gradient by what a receiver makes of the stream, as one by the stream; 0 where it is a constant."""
    raise_if_cancelled()
    (found,) = torch.autograd.grad(reached, stream, gradient, retain_graph=True, allow_unused=True)
    return torch.zeros_like(stream) if found is None else found
