"""A value of few numbers and much work: a table that is filled step by step, each part of the work bounded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch

from transparent_llm_server.models.values.value import Piece, Step, Value, cut_ranges


class Filled(Value):
    """Of float32, NaN where nothing is filled in. What derives from it says the steps, and cuts by its ranges."""

    dtype = torch.float32

    def __init__(self, ranges: Sequence[range]) -> None:
        self._ranges = list(ranges)
        self.shape = tuple(map(len, self._ranges))
        self._left: Iterator[Step] | None = None
        self._table: torch.Tensor | None = None

    def select(self, index: Sequence[slice]) -> Value:
        """Another one, of a part: what it does not need is not computed."""
        return self._of(cut_ranges(self._ranges, index))

    def pieces(self, max_bytes: int) -> Iterator[Piece]:  # noqa: ARG002 - it is small
        """One."""
        yield Piece(self.shape, self.tensor, self._steps)

    def tensor(self) -> torch.Tensor:
        """The steps that are left are taken now."""
        for step in self._steps():
            step()
        return self._filled

    def _steps(self) -> Iterator[Step]:
        """Those that nobody has taken."""
        if self._left is None:
            self._left = self._all_steps()
        return self._left

    @property
    def _filled(self) -> torch.Tensor:
        if self._table is None:
            self._table = torch.full(self.shape, torch.nan, dtype=self.dtype)
        return self._table

    @abstractmethod
    def _of(self, ranges: Sequence[range]) -> Value:
        """One that is cut to these ranges."""

    @abstractmethod
    def _all_steps(self) -> Iterator[Step]:
        """In their order, each of which is taken before the next one is asked for."""
