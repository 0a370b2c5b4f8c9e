"""The part of the remote object that differentiates: what is asked for goes to the server, gradients come back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch

from transparent_llm.analysis.differentiation import Differentiable, Differentiation, Gradients
from transparent_llm.client.connected import Connected, run_of
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.contract import TransparentLlm
from transparent_llm.interventions.sources import (
    kept_in,
    kept_in_vector,
    sources_of,
    sources_of_vector,
    with_unedited,
)
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.wire import gradients


class RemoteDifferentiating(Differentiable, Connected):
    """Gradients of the current run of one object: see `RemoteTransparentLlm`."""

    @plain_torch()
    def gradients(self, asked: Differentiation) -> Gradients:
        """In one call; a run that was lost is run again. A stream that breaks begins anew."""
        self._shared.models.require("gradients")
        asked = replace(asked, edits=with_unedited(asked.edits, lambda: self))  # type: ignore[arg-type,return-value]  # it is of the contract
        direction = asked.metric.direction
        kept = kept_in(asked.edits) | ({} if direction is None else kept_in_vector(direction))
        sources = _runs_of(asked)
        found = self._runs.read(lambda run: self._asked(run, asked, sources), sources, kept)
        return gradients.answered([self._to_device(tensor) for tensor in found], asked)

    def _asked(
        self, run: CurrentRun, asked: Differentiation, sources: Mapping[TransparentLlm, CurrentRun]
    ) -> list[torch.Tensor]:
        request = gradients.to_wire(asked, run.result.run_id, lambda llm: sources[llm].result.run_id)
        mask, (batch, n_pos) = run.result.mask, run.shape
        rows = [row if row >= 0 else row + batch for row in asked.rows if -batch <= row < batch]
        if mask is not None and rows:
            n_pos = int(mask[rows].sum(dim=1).max())
        run.find_model()
        info = run.model.info
        sizes = {"batch": len(asked.rows) or batch, "pos": n_pos, "query_pos": n_pos, "key_pos": n_pos}
        if info.d_model:
            sizes |= {"head": info.n_heads, "d_model": info.d_model}
        tensors = self._calls.tensors("Gradients", request, gradients.expected(asked, sizes), run.key)
        return [tensor for _, tensor in tensors]


def _runs_of(asked: Differentiation) -> Mapping[TransparentLlm, CurrentRun]:
    """What it takes from, as it is now."""
    return {source: run_of(source, "the source of gradients") for source in _sources(asked)}  # type: ignore[misc]


def _sources(asked: Differentiation) -> Iterator[object]:
    yield from sources_of(asked.edits)
    yield from (each.source for each in asked.sites if each.source is not None)
    if asked.edges is not None:
        yield asked.edges.source
    if asked.path is not None and not isinstance(asked.path.baseline, str | int):
        yield asked.path.baseline
    if asked.metric.run is not None:
        yield asked.metric.run
    if asked.metric.direction is not None:
        yield from sources_of_vector(asked.metric.direction)
