"""Vectors of the residual stream on their way to the vocabulary, in blocks of vectors and of tokens.

A block is computed whole or not at all, and which blocks there are depends on the model and on what was given, never on
what is asked for of it: so a part has the bits of the whole, and costs the product of its own blocks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from transparent_llm_server.models.derived.logits import block_length
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.values.value import Piece, Value, as_slice, cut_ranges

_TOKENS = 4096
"""Of the vocabulary, in one product. Never a setting, as it decides the last bits."""


class Unembedded(Value):
    """[d_vocab] of a vector, [n d_vocab] of a matrix, or a part of it."""

    def __init__(
        self, model: BridgedModel, t: torch.Tensor, *, normalize: bool, ranges: Sequence[range] | None = None
    ) -> None:
        self._model, self._t, self._normalize = model, t, normalize
        self._ranges = list(ranges or [range(n) for n in (*t.shape[:-1], model.d_vocab)])
        self.shape, self.dtype = tuple(map(len, self._ranges)), model.dtype
        self._block = block_length(model.d_vocab, self.dtype)
        self.may_interrupt = not model.materializes

    def select(self, index: Sequence[slice]) -> Value:
        """Some vectors, some tokens of the vocabulary."""
        ranges = cut_ranges(self._ranges, index)
        return Unembedded(self._model, self._t, normalize=self._normalize, ranges=ranges)

    def pieces(self, max_bytes: int) -> Iterator[Piece]:  # noqa: ARG002 - a block is what can be computed
        """A block of vectors each."""
        if self._t.ndim == 1:
            yield Piece(self.shape, lambda: self._scores(self._t[None])[0])
            return
        rows = self._ranges[0]
        for start in range(0, self._t.shape[0], self._block):
            inside = [row - start for row in rows if start <= row < start + self._block]
            if inside:
                yield Piece((len(inside), self.shape[1]), partial(self._of_block, start, inside))

    def tensor(self) -> torch.Tensor:
        """All of it."""
        made = [piece.compute() for piece in self.pieces(0)]
        if not made:
            return torch.empty(self.shape, dtype=self.dtype)
        return made[0] if len(made) == 1 else torch.cat(made)

    def _of_block(self, start: int, inside: Sequence[int]) -> torch.Tensor:
        return self._scores(self._t[start : start + self._block])[inside]

    def _scores(self, rows: torch.Tensor) -> torch.Tensor:
        tokens, made = self._ranges[-1], []
        for start in range(0, self._model.d_vocab, _TOKENS):
            block = range(start, min(start + _TOKENS, self._model.d_vocab))
            first = _first_at_least(tokens, block.start)
            part = tokens[first : _first_at_least(tokens, block.stop)]
            if part:
                scores = self._model.unembed(rows, normalize=self._normalize, tokens=block)
                made.append(scores[:, as_slice(range(part.start - start, part[-1] - start + 1, part.step))])
        if not made:
            return torch.empty(len(rows), 0, dtype=self.dtype)
        return made[0] if len(made) == 1 else torch.cat(made, dim=1)


def _first_at_least(tokens: range, least: int) -> int:
    """How many of these are before it; they ascend."""
    return min(len(tokens), max(0, -(-(least - tokens.start) // tokens.step)))
