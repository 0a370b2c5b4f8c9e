"""Asking for less: parts of axes and a smaller element type, for all reads within a block of code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast, get_args

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.quoting import kind_of, quoted

Padding = Literal["keep", "nan"]
"""What stands at padded positions of floating values: what the model computed there, which means nothing, or NaN."""


@dataclass(frozen=True)
class Selection:
    """What is asked for of every tensor that has such an axis."""

    dtype: torch.dtype | None = None
    """Of floating tensors. None: as the server holds them."""

    axes: tuple[tuple[str, tuple[int | None, int | None, int | None]], ...] = ()
    """(axis, (start, stop, step)) for each axis that is cut; hashable, unlike a slice."""

    padding: Padding = field(default="keep", compare=False)
    """Marked where a caller is given a value: what is sent and kept is the same."""

    def narrowed(
        self,
        dtype: torch.dtype | None,
        axes: Mapping[str, slice],
        known: frozenset[str],
        padding: Padding | None = None,
    ) -> Selection:
        """With these axes cut, or cut differently, and another choice of type and padding where one is given.

        Raises:
            InvalidRequestError: an axis that no tensor has, something else than a slice, no floating dtype, or no such
                choice.
        """
        require_dtype("reading", dtype)
        if dtype is not None and not dtype.is_floating_point:
            raise InvalidRequestError(f"reading takes a floating dtype, got {dtype}", reason="INVALID_DTYPE")
        named = _named_once(axes)
        for axis, part in named.items():
            if axis not in known:
                names = ", ".join(sorted(known - {_OTHER_NAME}))
                raise invalid_slice(axis, f"no tensor has an axis {quoted(axis)}; the axes are {names}")
            if not isinstance(part, slice):
                raise invalid_slice(
                    axis, f"reading takes a slice for {axis!r}, got {part!r}; for one index write slice(i, i + 1)"
                )
            for bound in (part.start, part.stop, part.step):
                if bound is not None and not hasattr(bound, "__index__"):
                    raise invalid_slice(axis, f"a slice of {axis!r} has integers, got {kind_of(bound)}")
            if part.step is not None and part.step < 1:
                raise invalid_slice(axis, f"step {part.step} on axis {axis!r}: a step must be at least 1")
        merged = {**dict(self.axes), **{axis: (part.start, part.stop, part.step) for axis, part in named.items()}}
        chosen = self.padding if padding is None else checked_padding(padding)
        return Selection(dtype or self.dtype, tuple(merged.items()), chosen)

    def cut(self, name: str, dims: tuple[str, ...]) -> dict[str, slice]:
        """The slices for a tensor with these axes.

        Raises:
            InvalidRequestError: one is for an axis that it does not have: it would come whole, as if nothing had been
                asked for.
        """
        found = self.of(dims)
        if len(found) < len(self.axes):
            wrong = next(axis for axis, _ in self.axes if axis not in map(_one_name, dims))
            has = ", ".join(map(_one_name, dims)) or "none"
            raise invalid_slice(
                wrong,
                f"{name} has no axis {wrong!r}, which this reading block cuts; its axes are {has}: read it outside, or "
                "in a block of its own",
            )
        return found

    def of(self, dims: tuple[str, ...]) -> dict[str, slice]:
        """The slices that concern a tensor with these axes."""
        asked = dict(self.axes)
        return {axis: slice(*asked[_one_name(axis)]) for axis in dims if _one_name(axis) in asked}


_OTHER_NAME = "vocab"
"""What the annotation of `unembed` calls the axis that is d_vocab elsewhere."""


def _one_name(axis: str) -> str:
    return "d_vocab" if axis == _OTHER_NAME else axis


def _named_once(axes: Mapping[str, slice]) -> dict[str, slice]:
    """Under the names by which axes are kept."""
    if {_OTHER_NAME, _one_name(_OTHER_NAME)} <= axes.keys():
        raise invalid_slice(_OTHER_NAME, "vocab and d_vocab are two names of one axis: give it once")
    return {_one_name(axis): part for axis, part in axes.items()}


def checked_padding(given: object) -> Padding:
    """One of the choices.

    Raises:
        InvalidRequestError: it is none of them.
    """
    for choice in get_args(Padding):
        if given == choice:
            return cast(Padding, choice)
    raise InvalidRequestError(
        f'padding is "keep", for what the model computed at padded positions, or "nan", got {kind_of(given)}'
    )


def require_dtype(taker: str, dtype: object) -> None:
    """Refuse what is neither a dtype of torch nor None, such as the name of one.

    Raises:
        InvalidRequestError: it is something else.
    """
    if dtype is not None and not isinstance(dtype, torch.dtype):
        meant = str(dtype).removeprefix("torch.") if isinstance(dtype, str) else "bfloat16"
        written = meant if isinstance(getattr(torch, meant, None), torch.dtype) else "bfloat16"
        raise InvalidRequestError(
            f"{taker} takes a dtype of torch, got {kind_of(dtype)}: write dtype=torch.{written}", reason="INVALID_DTYPE"
        )


def invalid_slice(axis: str, message: str) -> InvalidRequestError:
    """The error for a part of an axis that cannot be given."""
    return InvalidRequestError(message, reason="INVALID_SLICE", metadata={"axis": axis})
