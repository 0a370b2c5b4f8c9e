"""Norms of a layer whose divisors are frozen."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from transparent_llm.interventions.site import NORM_SCALES
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.taps import Rewrite
from transparent_llm_server.models.forward.taps import Site as Passing
from transparent_llm_server.models.interventions.edit import Edit, all_made
from transparent_llm_server.models.interventions.frozen_norm import FrozenNorm


def norm_rewrites(
    layer: Layer, index: int, batch_pos: tuple[int, ...], edits: Sequence[Edit], *, keeps: bool
) -> dict[Passing, Rewrite]:
    """Of the norms of a layer that these edits freeze; `keeps`: also what they divide by where nothing changes."""
    found: dict[Passing, Rewrite] = {}
    for place, kind in NORM_SCALES.items():
        of_norm = [edit for edit in edits if edit.site.kind is kind]
        norm = layer.norm(place) if of_norm else None
        if norm is not None:
            found |= FrozenNorm(layer, index, place, norm, batch_pos, partial(all_made, of_norm), keeps=keeps).rewrites
    return found
