"""Logits are not kept: the last residual gives them, in blocks of positions that depend on the model alone.

The same block is computed whichever part of it is asked for, so a part has the bits of the whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import torch

from transparent_llm.runtime import memory
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.values.value import Piece, Value, as_slice, cut_ranges

_BlockPart = tuple[int, int, range]
_BLOCK_BYTES = 8 * 2**20
"""Never a setting, nor the two below: blocks decide the last bits of logits, and two servers of one model, or one
before and after it was restarted, must agree to the bit."""

_MOST_POSITIONS, _LEAST_POSITIONS = 32, 4


class Logits(Value):
    """[batch pos d_vocab], or a part of it."""

    def __init__(
        self,
        model: BridgedModel,
        residual: torch.Tensor,
        scale: torch.Tensor | None = None,
        ranges: Sequence[range] | None = None,
    ) -> None:
        """Of the stream after the last block; `scale` [batch pos 1] is what the final norm divides by, if not that of
        the stream."""
        self._model, self._residual, self._scale = model, residual, scale
        self._ranges = ranges or [range(n) for n in (*residual.shape[:2], model.d_vocab)]
        self.shape, self.dtype = tuple(map(len, self._ranges)), model.dtype
        self._block = block_length(model.d_vocab, self.dtype)
        self._block_bytes = self._block * model.d_vocab * self.dtype.itemsize

    def select(self, index: Sequence[slice]) -> Value:
        """Some rows, positions, tokens of the vocabulary."""
        return Logits(self._model, self._residual, self._scale, cut_ranges(self._ranges, index))

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """Some blocks each; one block can be more than `max_bytes`. However little of each block is wanted, they are
        computed whole: so they count as what they are too."""
        taken: list[_BlockPart] = []
        count, most_blocks = 0, max(1, _BLOCK_BYTES // self._block_bytes)
        for part in self._block_parts():
            count += len(part[2])
            if taken and (count * self._position_bytes > max_bytes or len(taken) == most_blocks):
                yield self._piece_of(taken)
                taken, count = [], len(part[2])
            taken.append(part)
        if taken:
            yield self._piece_of(taken)

    def _block_parts(self) -> Iterator[_BlockPart]:
        """(row, first position of a block, positions in it) in C order."""
        batch, positions, _ = self._ranges
        for row in batch:
            i = 0
            while i < len(positions):
                start = positions[i] // self._block * self._block
                n = len(range(positions[i], min(start + self._block, positions.stop), positions.step))
                yield row, start, range(positions[i] - start, positions[i + n - 1] - start + 1, positions.step)
                i += n

    def tensor(self) -> torch.Tensor:
        """All blocks, one after the other into one tensor."""
        whole = memory.empty(self.shape, self.dtype, self._residual.device)
        flat, done = whole.flatten(), 0
        for piece in self.pieces(_BLOCK_BYTES):
            part = piece.compute()
            flat[done : done + part.numel()] = part.flatten()
            done += part.numel()
        return whole

    @property
    def _position_bytes(self) -> int:
        return self.shape[2] * self.dtype.itemsize

    def _piece_of(self, parts_of_blocks: list[_BlockPart]) -> Piece:
        return Piece((_count(parts_of_blocks), self.shape[2]), partial(self._compute, parts_of_blocks))

    def _compute(self, parts_of_blocks: list[_BlockPart]) -> torch.Tensor:
        parts = [self._block_part(*part) for part in parts_of_blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _block_part(self, row: int, start: int, positions: range) -> torch.Tensor:
        at, tokens = (row, slice(start, start + self._block)), range(self._model.d_vocab)
        scale = None if self._scale is None else self._scale[at]
        block = self._model.unembed(self._residual[at], normalize=True, tokens=tokens, scale=scale)
        return block[as_slice(positions), as_slice(self._ranges[2])]


def _count(parts_of_blocks: list[_BlockPart]) -> int:
    return sum(len(positions) for _, _, positions in parts_of_blocks)


def block_length(d_vocab: int, dtype: torch.dtype) -> int:
    """Vectors whose scores are computed together: it depends on the model alone."""
    return min(max(_BLOCK_BYTES // (d_vocab * dtype.itemsize), _LEAST_POSITIONS), _MOST_POSITIONS)
