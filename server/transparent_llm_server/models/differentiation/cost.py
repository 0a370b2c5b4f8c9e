"""What the graph of a pass takes of memory, known before it is made."""

from __future__ import annotations

from collections.abc import Sequence

from transparent_llm.interventions.site import OF_HEADS, Site, SiteKind
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.neurons import ExpertNeurons

_ITEM_BYTES = 4
"""Norms, softmax and scores are computed in float32 whatever the type of the model."""

_OF_STREAM, _OF_HEADS, _OF_NEURONS, _OF_PAIRS, _OF_SCORES = 20, 12, 6, 6, 8
"""Copies that a graph keeps, at the most: of vectors of the stream, of queries, keys and values, of activations, of
attention scores, and of the scores of all tokens."""


_OF_EDIT = 6
"""Copies of the tensor that an edit changes."""


def graph_bytes(
    model: BridgedModel, start: int, n_rows: int, n_pos: int, n_measured: int, edited: Sequence[Site] = ()
) -> int:
    """At the most, of so many rows and positions.

    Args:
        model: That runs.
        start: The layer that the graph begins with.
        n_rows: Of the pass.
        n_pos: Of each row.
        n_measured: Positions whose scores of all tokens the metric is made of.
        edited: The sites of edits.
    """
    found = sum(_OF_EDIT * _width(model, site, n_pos) for site in edited)
    for layer in model.layers[start:]:
        of_position = _OF_STREAM * model.d_model
        if layer.has_heads:
            heads = layer.heads
            of_position += _OF_HEADS * heads.n_heads * heads.d_head + _OF_PAIRS * heads.n_heads * n_pos
        of_position += _OF_NEURONS * (4 * model.d_model if layer.neurons is None else layer.neurons.most_active)
        found += of_position
    return _ITEM_BYTES * (n_rows * n_pos * found + n_measured * _OF_SCORES * model.d_vocab)


def _width(model: BridgedModel, site: Site, n_pos: int) -> int:
    """Of what passes at a site, at each position."""
    layer = model.layers[site.layer]
    if site.kind is SiteKind.NEURONS and layer.neurons is not None and not isinstance(layer.neurons, ExpertNeurons):
        return layer.neurons.count
    if site.kind in OF_HEADS and layer.has_heads:
        of_pattern = n_pos * layer.heads.n_heads if site.kind is SiteKind.PATTERN else 0
        return of_pattern + layer.heads.n_heads * layer.heads.d_head + model.d_model
    return model.d_model
