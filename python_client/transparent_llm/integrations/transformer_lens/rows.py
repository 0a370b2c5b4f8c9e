"""Rows of token ids in a padded tensor: what is run of them, and where the values that come back belong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm.errors import InvalidRequestError


@dataclass(frozen=True)
class Rows:
    """A batch as a caller laid it out. The service pads on the right; the caller may have padded on the left."""

    token_ids: list[list[int]]
    """Of each row, padding left out."""

    starts: list[int]
    """Position of the first token of each row."""

    length: int
    """Positions of a row with its padding."""

    @classmethod
    def of(cls, input_ids: Any, attention_mask: Any = None) -> Rows:
        """The rows of token ids [batch pos] or [pos]. Without a mask every id is a token.

        Raises:
            InvalidRequestError: no integers, a mask of another shape, with other values than 0 and 1, with a gap
                between tokens, or one that leaves a row without a token.
        """
        ids = torch.as_tensor(input_ids)
        ids = ids[None] if ids.ndim == 1 else ids
        if ids.ndim != 2 or ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool:
            raise InvalidRequestError(
                f"input_ids must be integers of shape [batch pos] or [pos], got {ids.dtype} of shape {list(ids.shape)}"
            )
        mask = torch.ones_like(ids) if attention_mask is None else torch.as_tensor(attention_mask)
        mask = mask[None] if mask.ndim == 1 else mask
        if mask.shape != ids.shape:
            raise InvalidRequestError(
                f"attention_mask has shape {list(mask.shape)}, input_ids {list(ids.shape)}: they must be the same"
            )
        spans = [_span(index, row) for index, row in enumerate(mask.tolist())]
        token_ids = [row[start:stop] for row, (start, stop) in zip(ids.tolist(), spans, strict=True)]
        return cls(token_ids, [start for start, _ in spans], ids.shape[1])

    @property
    def n_pos(self) -> int:
        """Positions of the run that is made of these rows."""
        return max((len(row) for row in self.token_ids), default=0)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each row."""
        return [len(row) for row in self.token_ids]

    def place(self, value: torch.Tensor, pos_axes: Sequence[int], padding: float = 0.0) -> torch.Tensor:
        """A tensor of the run, [batch, ...], in the caller's layout; `padding` stands where no token is.

        Raises:
            InvalidRequestError: it is not of all rows and positions of the run.
        """
        sizes = [value.shape[axis] for axis in (0, *pos_axes)]
        if sizes != [len(self.token_ids), *(self.n_pos for _ in pos_axes)]:
            raise InvalidRequestError(
                f"a value of shape {list(value.shape)} came for {len(self.token_ids)} rows of {self.n_pos} positions: "
                "make the bridge outside of `reading` blocks that slice axes; run_with_cache has pos_slice"
            )
        if all(len(row) == self.length for row in self.token_ids):
            return value
        shape = [self.length if axis in pos_axes else size for axis, size in enumerate(value.shape)]
        placed = value.new_full(shape, padding)
        for index, (row, start) in enumerate(zip(self.token_ids, self.starts, strict=True)):
            target, source = placed[index], value[index]
            for axis in pos_axes:
                target = target.narrow(axis - 1, start, len(row))
                source = source.narrow(axis - 1, 0, len(row))
            target.copy_(source)
        return placed


def _span(index: int, mask: list[Any]) -> tuple[int, int]:
    """First token of a row and the position after its last."""
    where = [position for position, held in enumerate(mask) if held]
    if any(held not in (0, 1) for held in mask):
        raise InvalidRequestError(f"attention_mask of row {index} has values other than 0 and 1")
    if not where:
        raise InvalidRequestError(f"attention_mask leaves row {index} without a token", reason="EMPTY_INPUT")
    if where[-1] - where[0] + 1 != len(where):
        raise InvalidRequestError(f"attention_mask of row {index} has a gap between tokens: a row is run as a whole")
    return where[0], where[-1] + 1
