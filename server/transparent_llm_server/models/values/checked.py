"""A value with a check: whoever takes a part of it learns whether it may still be used."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from transparent_llm_server.models.values.value import Factor, Piece, Value


class CheckedValue(Value):
    """Another value, with something that is called after each part of it was computed and may raise."""

    def __init__(self, value: Value, check: Callable[[], None]) -> None:
        self._value, self._check = value, check
        self.shape, self.dtype = value.shape, value.dtype
        self.is_quick, self.may_interrupt = value.is_quick, value.may_interrupt
        self.may_be_interrupted, self.work = value.may_be_interrupted, value.work

    def select(self, index: Sequence[slice]) -> Value:
        """The part, with the same check."""
        return CheckedValue(self._value.select(index), self._check)

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """Each is checked when it was computed."""
        for piece in self._value.pieces(max_bytes):
            yield dataclasses.replace(piece, compute=self._checked(piece.compute))

    def tensor(self) -> torch.Tensor:
        """Checked when it was computed."""
        return self._checked(self._value.tensor)()

    def own_tensor(self) -> torch.Tensor:
        """As `tensor`, in memory that belongs to the caller."""
        return self._checked(self._value.own_tensor)()

    def factors(self) -> tuple[Factor, ...]:
        """Checked now, and each again when it is taken."""
        found = self._value.factors()
        self._check()
        return tuple(dataclasses.replace(factor, value=CheckedValue(factor.value, self._check)) for factor in found)

    def _checked(self, compute: Callable[[], torch.Tensor]) -> Callable[[], torch.Tensor]:
        def checked() -> torch.Tensor:
            result = compute()
            self._check()
            return result

        return checked
