"""Batches of token ids, and running several of them in one forward pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from transparent_llm_server.models.bridged import BridgedModel
from transparent_llm_server.models.capture import Capture


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, padded on the right, on the CPU."""

    tokens: torch.Tensor
    """[batch pos], int64."""

    mask: torch.Tensor
    """[batch pos], True where there is a token."""


def run_together(model: BridgedModel, batches: Sequence[Batch]) -> list[Capture]:
    """One forward pass for all of them; each gets a capture of its own, as if it had run alone.

    The values of a batch that ran with others differ from those that it has alone by rounding.
    """
    if len(batches) == 1:
        return [model.forward(batches[0].tokens, batches[0].mask)]
    n_pos = max(batch.tokens.shape[1] for batch in batches)
    tokens = torch.cat([_widened(batch.tokens, n_pos) for batch in batches])
    mask = torch.cat([_widened(batch.mask, n_pos) for batch in batches])
    together, captures, first = model.forward(tokens, mask), [], 0
    for batch in batches:
        captures.append(together.rows(first, batch.tokens, batch.mask))
        first += batch.tokens.shape[0]
    return captures


def _widened(rows: torch.Tensor, n_pos: int) -> torch.Tensor:
    return pad(rows, (0, n_pos - rows.shape[1]))
