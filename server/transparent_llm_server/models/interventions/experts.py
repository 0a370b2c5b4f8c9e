"""Neurons of a mixture of experts: an edit of them is what it changes of what the layer gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from transparent_llm.errors import TooLargeError
from transparent_llm.runtime.numerics import wide
from transparent_llm_server.models.derived.mixing import edited_activations
from transparent_llm_server.models.forward.capture import LayerCapture
from transparent_llm_server.models.forward.neurons import ExpertNeurons
from transparent_llm_server.models.interventions.edit import Edit

MOST_ACTIVATIONS = 2**26
"""Of all neurons at the positions of one layer that edits of one run select."""

_BLOCK = 4096
"""Neurons whose output vectors are multiplied at a time."""

Keep = Callable[[torch.Tensor, torch.Tensor], None]
"""Activations at edited places [n d_ffn], and which of them a position has [batch pos]."""


def require_few_activations(neurons: ExpertNeurons, places: int) -> None:
    """Refuse edits at more places of a layer than its activations are held of.

    Raises:
        TooLargeError: with the numbers.
    """
    if places * neurons.count > MOST_ACTIVATIONS:
        raise TooLargeError(
            f"edits of experts select {places} positions of {neurons.count} neurons in one layer: at most "
            f"{MOST_ACTIVATIONS // neurons.count} positions can be edited in one run",
            metadata={"needed": str(places), "allowed": str(MOST_ACTIVATIONS // neurons.count)},
        )


def with_edited_experts(
    neurons: ExpertNeurons, edits: Sequence[Edit], given: torch.Tensor, gives: torch.Tensor, keep: Keep
) -> torch.Tensor:
    """What a layer gives [batch pos d_model] of what it is given, where activations are edited: itself if none changes.

    Activations have the weight of the router; those of experts that were not chosen are 0 before.
    """
    selected = {place for edit in edits for place in zip(edit.selected.rows, edit.selected.positions, strict=True)}
    places = sorted(selected)
    require_few_activations(neurons, len(places))
    rows, positions = ([place[axis] for place in places] for axis in (0, 1))
    nth = {place: n for n, place in enumerate(places)}
    before = made = neurons.activations_at(given, rows, positions)[None]
    for edit in edits:
        placed = edit.placed(nth)
        made = placed.made(made)
        edit.effect = placed.effect
    if made is before:
        return gives
    index = torch.full(given.shape[:2], -1, dtype=torch.int64, device=given.device)
    index[rows, positions] = torch.arange(len(places), device=given.device)
    keep(made[0], index)
    difference = wide(made[0]) - wide(before[0])
    more = wide(gives.new_zeros(len(places), gives.shape[-1]))
    for start in range(0, neurons.count, _BLOCK):
        part = difference[:, start : start + _BLOCK]
        if bool(part.any()):
            more += part @ wide(neurons.output_vectors(start, start + part.shape[1]))
    changed = gives.clone()
    changed[rows, positions] = (wide(gives[rows, positions]) + more).to(gives.dtype)
    return changed


def activations_at(
    neurons: ExpertNeurons, capture: LayerCapture, rows: Sequence[int], positions: Sequence[int]
) -> torch.Tensor:
    """Those of a run at some places [n d_ffn], as its edits left them."""
    assert capture.neurons is not None  # the site was checked
    require_few_activations(neurons, len(rows))
    found = neurons.activations_at(capture.neurons, rows, positions)
    for n, (row, pos) in enumerate(zip(rows, positions, strict=True)):
        edited = edited_activations(capture, row, pos)
        if edited is not None:
            found[n] = edited
    return found
