"""A value that somebody asked for, before it is computed: cut it first, then take it whole or piece by piece.

`Stored` lies in a run's memory. All others are computed when they are taken, and only the part that was asked for.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

Step = Callable[[], None]
"""A bounded part of a computation."""

_Index = tuple[int | slice, ...]


@dataclass(frozen=True)
class Piece:
    """Some elements of a value, in C order."""

    shape: tuple[int, ...]
    compute: Callable[[], torch.Tensor]
    steps: Callable[[], Iterable[Step]] = tuple
    """What is still to be computed before, where that is much: step by step others get their turn, and whoever has
    left costs no more than one. `compute` without them does all of it."""


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

    may_interrupt = False
    """Whether it can be computed between two layers of a forward pass, which does not notice."""

    may_be_interrupted = False
    """Whether it takes long, in pieces, and other values can be computed between two of them."""

    work = 0
    """Multiply-adds, where they are so many that they are limited."""

    @property
    def nbytes(self) -> int:
        """Bytes of the whole value in its own type, whether it is computed or not."""
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
        """What it is the product of, if it is one; see ENCODING_FACTORED in tensor.proto. Nothing is computed yet."""
        return ()


Found = Value | tuple[Value | None, ...]
"""What a method gives: its value, or one for each of its parts; None for a part that is absent."""


class Stored(Value):
    """A tensor that is there, or a view of it."""

    is_quick = True

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.shape, self.dtype = tuple(tensor.shape), tensor.dtype

    def select(self, index: Sequence[slice]) -> Value:
        """A view of the part."""
        return Stored(self._tensor[tuple(index)])

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """One piece if it can be sent as it lies, otherwise parts, each of which is then copied."""
        if self._tensor.is_contiguous():
            yield Piece(self.shape, self.tensor)
            return
        for index in indices_of_pieces(self.shape, self.dtype, max_bytes):
            part = Stored(self._tensor[index])
            yield Piece(part.shape, part.tensor)

    def tensor(self) -> torch.Tensor:
        """As it lies in memory, which nobody may write to."""
        return self._tensor

    def own_tensor(self) -> torch.Tensor:
        """A copy, which may be written to."""
        return self._tensor.clone()


class Sum(Value):
    """The sum of two tensors that are there, made piece by piece."""

    is_quick = True

    def __init__(self, first: torch.Tensor, second: torch.Tensor) -> None:
        self._first, self._second = first, second
        self.shape, self.dtype = tuple(first.shape), first.dtype

    def select(self, index: Sequence[slice]) -> Value:
        """The sum of the parts."""
        return Sum(self._first[tuple(index)], self._second[tuple(index)])

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """The sums of some rows each."""
        for index in indices_of_pieces(self.shape, self.dtype, max_bytes):
            part = Sum(self._first[index], self._second[index])
            yield Piece(part.shape, part.tensor)

    def tensor(self) -> torch.Tensor:
        """The whole sum, in new memory."""
        return torch.add(self._first, self._second)


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
        """One, as the function makes all of it."""
        yield Piece(self.shape, self._compute)

    def tensor(self) -> torch.Tensor:
        """As the function makes it."""
        return self._compute()


def indices_of_pieces(shape: Sequence[int], dtype: torch.dtype, max_bytes: int) -> Iterator[_Index]:
    """What names parts of a tensor in C order: as many rows as fit, or parts of one row."""
    row_bytes = math.prod(shape[1:]) * dtype.itemsize
    if not shape or shape[0] * row_bytes <= max_bytes:
        yield ()
    elif row_bytes <= max_bytes or len(shape) == 1:
        step = max(1, max_bytes // row_bytes)
        yield from ((slice(start, start + step),) for start in range(0, shape[0], step))
    else:
        for row in range(shape[0]):
            yield from ((row, *rest) for rest in indices_of_pieces(shape[1:], dtype, max_bytes))


def cut_shape(shape: Sequence[int], index: Sequence[slice]) -> tuple[int, ...]:
    """What slices within the axes leave of a shape."""
    return tuple(map(len, cut_ranges([range(n) for n in shape], index)))


def as_slice(indices: range) -> slice:
    """The slice that names these indices of an axis."""
    return slice(indices.start, indices.stop, indices.step)


def cut_ranges(ranges: Sequence[range], index: Sequence[slice]) -> list[range]:
    """The indices that are left of each axis after a further cut."""
    return [indices[part] for indices, part in zip(ranges, index, strict=True)]
