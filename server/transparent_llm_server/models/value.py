"""A value that somebody asked for, before it is computed: cut it first, then take it whole or piece by piece.

`Stored` lies in a run's memory. All others are computed when they are taken, and only the part that was asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Piece:
    """Some elements of a value, in C order."""

    shape: tuple[int, ...]
    compute: Callable[[], torch.Tensor]


@dataclass(frozen=True)
class Factor:
    """A factor of a value, under the name that tensor.proto gives it."""

    name: str
    dims: tuple[str, ...]
    value: Value


class Value(ABC):
    """A tensor to be. Shape and dtype are known before anything is computed."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    is_quick = False
    """Whether taking it is little work, so that nobody need queue for it."""

    @property
    def nbytes(self) -> int:
        """Of the whole value."""
        return math.prod(self.shape) * self.dtype.itemsize

    @abstractmethod
    def select(self, index: Sequence[slice]) -> Value:
        """The part that one slice for each axis names. Starts and stops lie within the axes, steps are positive."""

    @abstractmethod
    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """The value in pieces of about `max_bytes` at the most, where its rows allow it."""

    @abstractmethod
    def tensor(self) -> torch.Tensor:
        """The whole value. May be a view of a run's memory, which nobody may write to."""

    def own_tensor(self) -> torch.Tensor:
        """The whole value, in memory that belongs to the caller."""
        return self.tensor()

    def factors(self) -> tuple[Factor, ...]:
        """What it is the product of, if it is one; see ENCODING_FACTORED in tensor.proto. Can be some work."""
        return ()


class Stored(Value):
    """A tensor that is there, or a view of it."""

    is_quick = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def select(self, index: Sequence[slice]) -> Value:
        """A view."""
        return Stored(self._tensor[tuple(index)])

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """One piece if it can be sent as it lies, otherwise rows, each of which is then copied."""
        if self._tensor.is_contiguous() or self.nbytes <= max_bytes or not self.shape:
            yield Piece(self.shape, self.tensor)
            return
        step = max(1, max_bytes * self.shape[0] // self.nbytes)
        for start in range(0, self.shape[0], step):
            part = Stored(self._tensor[start : start + step])
            yield Piece(part.shape, part.tensor)

    def tensor(self) -> torch.Tensor:
        """A view."""
        return self._tensor

    def own_tensor(self) -> torch.Tensor:
        """A copy."""
        return self._tensor.clone()


class Computed(Value):
    """A tensor of known shape that a function makes in one go."""

    def __init__(
        self, shape: Sequence[int], dtype: torch.dtype, compute: Callable[[], torch.Tensor], *, is_quick: bool = False
    ) -> None:
        self.shape, self.dtype, self._compute, self.is_quick = tuple(shape), dtype, compute, is_quick

    def select(self, index: Sequence[slice]) -> Value:
        """Computed whole, then cut."""
        cut, compute = tuple(index), self._compute
        return Computed(cut_shape(self.shape, cut), self.dtype, lambda: compute()[cut], is_quick=self.is_quick)

    def pieces(self, max_bytes: int) -> Iterator[Piece]:  # noqa: ARG002
        """One."""
        yield Piece(self.shape, self._compute)

    def tensor(self) -> torch.Tensor:
        """As the function makes it."""
        return self._compute()


def cut_shape(shape: Sequence[int], index: Sequence[slice]) -> tuple[int, ...]:
    """What slices within the axes leave of a shape."""
    return tuple(map(len, cut_ranges([range(n) for n in shape], index)))


def as_slice(indices: range) -> slice:
    """The slice that names these indices of an axis."""
    return slice(indices.start, indices.stop, indices.step)


def cut_ranges(ranges: Sequence[range], index: Sequence[slice]) -> list[range]:
    """The indices that are left of each axis after a further cut."""
    return [indices[part] for indices, part in zip(ranges, index, strict=True)]
