"""Queries and keys of a run, which no run keeps: its layers compute them again of the stream that entered them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch

from transparent_llm.errors import TooLargeError
from transparent_llm.interventions import Intervention, Site, Vector
from transparent_llm.interventions.site import SiteKind
from transparent_llm.interventions.vector import ValueOf
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.batch import Batch
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.passes import Section
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.frozen_norm import FrozenNorm

MOST_RUNS = 16
"""Runs that the edits of one run may take queries and keys from, each of which is one more forward pass."""

Multiplied = dict[tuple[int, SiteKind], torch.Tensor]
"""(layer, QUERY or KEY) -> [batch pos head d], as edits of the run left them."""

_Kept = dict[Any, torch.Tensor]
_FIELDS = {SiteKind.QUERY: "query", SiteKind.KEY: "key"}


def require_few_runs(edits: Sequence[Intervention]) -> None:
    """Refuse edits that take queries and keys from more runs than `MOST_RUNS`, before any is computed.

    Raises:
        TooLargeError: with the numbers.
    """
    count = len({id(source) for edit in edits for source in _sources(edit.operation, edit.site)})
    if count > MOST_RUNS:
        raise TooLargeError(
            f"these edits take queries and keys from {count} runs, at most {MOST_RUNS} can be computed again for one",
            metadata={"needed": str(count), "allowed": str(MOST_RUNS)},
        )


def _sources(part: object, site: Site) -> Iterator[object]:
    for field in dataclasses.fields(part):  # type: ignore[arg-type]  # operations and vectors are
        found = getattr(part, field.name)
        if isinstance(found, Vector):
            yield from _sources(found, found.site if isinstance(found, ValueOf) else site)
        elif field.name == "source" and site.kind in _FIELDS:
            yield found


def multiplied(model: BridgedModel, values: RunValues) -> Multiplied:
    """Of all layers that have heads, by one more forward pass.

    Raises:
        NotFoundError: MODEL_CHANGED.
        NotSupportedError: the model does not show them.
    """
    capture = values.capture
    found: Multiplied = {}
    batch = Batch(capture.tokens, capture.mask)
    for rows, part in batch.split(model.regimes):
        rewrites = _rewrites(model, values, rows, part, found)
        model.section(part.tokens, part.mask, rewrites, Section(frozenset()), capture.generation)
    for (layer, kind), edited in _edited(values).items():
        found[layer, kind] = edited
    return found


def _edited(values: RunValues) -> Multiplied:
    layers = enumerate(values.capture.layers)
    named = {(i, kind): getattr(layer, name) for i, layer in layers for kind, name in _FIELDS.items()}
    return {place: tensor for place, tensor in named.items() if tensor is not None}


def _rewrites(
    model: BridgedModel, values: RunValues, rows: Sequence[int], part: Batch, found: Multiplied
) -> dict[Passing, Rewrite]:
    """That put the stream of the run before each layer, and look at what its attention multiplies."""
    batch_pos = (len(rows), part.tokens.shape[1])
    rewrites: dict[Passing, Rewrite] = {}
    for i, layer in enumerate(model.layers):
        if not layer.has_heads:
            continue
        capture = values.capture.layers[i]
        stream = capture.residual_in[list(rows), : batch_pos[1]]
        rewrites[Passing(i, "residual_in")] = partial(_put, stream)
        norm = None if capture.attn_norm_scale is None else layer.norm("attn")
        if capture.attn_norm_scale is not None and norm is not None:
            frozen = partial(_as_it_was, capture.attn_norm_scale[list(rows), : batch_pos[1]])
            rewrites |= FrozenNorm(layer, i, "attn", norm, batch_pos, frozen, keeps=False).rewrites
        for kind, name in _FIELDS.items():
            rewrites[Passing(i, name)] = partial(_looked_at, (i, kind), rows, values.capture.tokens.shape, found)
    return rewrites


def _as_it_was(scale: torch.Tensor, own: torch.Tensor) -> torch.Tensor:  # noqa: ARG001
    return scale


def _put(stream: torch.Tensor, tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:  # noqa: ARG001
    return stream.reshape(tensor.shape).to(tensor)


def _looked_at(
    place: tuple[int, SiteKind],
    rows: Sequence[int],
    shape: Sequence[int],
    found: Multiplied,
    tensor: torch.Tensor,
    kept: _Kept,  # noqa: ARG001
) -> torch.Tensor:
    by_pos = tensor.transpose(1, 2)
    if place not in found:
        found[place] = by_pos.new_zeros(*shape, *by_pos.shape[2:])
    found[place][list(rows), : by_pos.shape[1]] = by_pos
    return tensor
