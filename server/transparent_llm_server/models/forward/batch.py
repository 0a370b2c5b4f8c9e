"""Batches of token ids, and running several of them in as few forward passes as they need."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import pad

from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.capture import Capture
from transparent_llm_server.models.forward.regimes import Regimes


@dataclass(frozen=True)
class Batch:
    """Rows of token ids, padded on the right, on the CPU."""

    tokens: torch.Tensor
    """Token ids, and the id for padding [batch pos], int64."""

    mask: torch.Tensor
    """[batch pos], True where there is a token."""

    @property
    def lengths(self) -> list[int]:
        """How many tokens each row has, without its padding."""
        lengths: list[int] = self.mask.sum(dim=1).tolist()
        return lengths

    def split(self, regimes: Regimes) -> list[tuple[list[int], Batch]]:
        """The rows that share a forward pass, and the batch that they are without the others."""
        lengths = self.lengths
        groups = regimes.groups(lengths)
        return [(rows, self._part(rows, max(lengths[row] for row in rows))) for rows in groups]

    def widened(self, n_pos: int) -> Batch:
        """The same rows with padding up to so many positions."""
        more = (0, n_pos - self.tokens.shape[1])
        return Batch(pad(self.tokens, more), pad(self.mask, more))

    def _part(self, rows: list[int], n_pos: int) -> Batch:
        return Batch(self.tokens[rows, :n_pos], self.mask[rows, :n_pos])


def run_together(model: BridgedModel, batches: Sequence[Batch]) -> list[Capture]:
    """Run several batches; each gets a capture of its own, as if it had run alone.

    Rows share a forward pass, and then differ by rounding from what they are alone, unless their model would let one
    choose how another is computed: see `Regimes`.
    """
    if len(batches) == 1:
        return [_run(model, batches[0])]
    n_pos = max(batch.tokens.shape[1] for batch in batches)
    wide = [batch.widened(n_pos) for batch in batches]
    together = _run(model, Batch(torch.cat([b.tokens for b in wide]), torch.cat([b.mask for b in wide])))
    captures, first = [], 0
    for batch in batches:
        captures.append(together.rows(first, batch.tokens, batch.mask))
        first += batch.tokens.shape[0]
    return captures


def _run(model: BridgedModel, batch: Batch) -> Capture:
    parts = batch.split(model.regimes)
    if len(parts) == 1:
        return model.forward(batch.tokens, batch.mask)
    passes = [(rows, model.forward(part.tokens, part.mask)) for rows, part in parts]
    model.edits.require_unchanged(passes[0][1].generation)  # nobody has changed the model between them
    return Capture.of_passes(batch.tokens, batch.mask, passes)
