"""Asking for less: parts of axes and a smaller element type, for all reads within a block of code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import quoted


@dataclass(frozen=True)
class Selection:
    """What is asked for of every tensor that has such an axis."""

    dtype: torch.dtype | None = None
    """Of floating tensors. None: as the server holds them."""

    axes: tuple[tuple[str, tuple[int | None, int | None, int | None]], ...] = ()
    """(axis, (start, stop, step)) for each axis that is cut; hashable, unlike a slice."""

    def narrowed(self, dtype: torch.dtype | None, axes: Mapping[str, slice], known: frozenset[str]) -> Selection:
        """With these axes cut, or cut differently.

        Raises:
            InvalidRequestError: an axis that no tensor has, something else than a slice, or no floating dtype.
        """
        if dtype is not None and not dtype.is_floating_point:
            raise InvalidRequestError(f"reading takes a floating dtype, got {dtype}", reason="INVALID_DTYPE")
        for axis, part in axes.items():
            if axis not in known:
                raise invalid_slice(
                    axis, f"no tensor has an axis {quoted(axis)}; the axes are {', '.join(sorted(known))}"
                )
            if not isinstance(part, slice):
                raise invalid_slice(
                    axis, f"reading takes a slice for {axis!r}, got {part!r}; for one index write slice(i, i + 1)"
                )
            if part.step is not None and part.step < 1:
                raise invalid_slice(axis, f"step {part.step} on axis {axis!r}: a step must be at least 1")
        merged = {**dict(self.axes), **{axis: (part.start, part.stop, part.step) for axis, part in axes.items()}}
        return Selection(dtype or self.dtype, tuple(merged.items()))

    def of(self, dims: tuple[str, ...]) -> dict[str, slice]:
        """The slices that concern a tensor with these axes."""
        return {axis: slice(*part) for axis, part in self.axes if axis in dims}


def invalid_slice(axis: str, message: str) -> InvalidRequestError:
    """The error for a part of an axis that cannot be given."""
    return InvalidRequestError(message, reason="INVALID_SLICE", metadata={"axis": axis})
