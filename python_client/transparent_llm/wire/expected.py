"""What must come for what was asked: each tensor of an answer is held to it by its header, before it has any memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch

from transparent_llm.quoting import listed, quoted
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.headers import Header, checked_header
from transparent_llm.wire.methods import Part
from transparent_llm.wire.protocol_error import ProtocolError

_LARGEST_ITEM_BYTES = 8
"""Of any element."""


@dataclass(frozen=True)
class Expected:
    """One value that was asked for: what its header must say."""

    name: str
    """Of the method."""

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    """Of its axes, and of those of its parts, as far as they are known: cut as was asked."""

    dtype: torch.dtype | None = None
    """None: any floating one."""

    parts: tuple[Part, ...] = ()
    """That it can come as; without dims, that it must come as."""

    def is_shape(self, shape: Sequence[int]) -> bool:
        """Whether the value can have this shape, as far as its sizes are known."""
        return len(shape) == len(self.dims) and all(
            self.sizes.get(axis, n) == n for axis, n in zip(self.dims, shape, strict=True)
        )

    @property
    def most_bytes(self) -> int | None:
        """That it can take; None: that depends on what is not known here."""
        if self.parts or not self.sizes.keys() >= set(self.dims):
            return None
        itemsize = _LARGEST_ITEM_BYTES if self.dtype is None else self.dtype.itemsize
        return math.prod([self.sizes[axis] for axis in self.dims]) * itemsize

    @property
    def comes_whole(self) -> bool:
        """Whether it can come as one tensor."""
        return bool(self.dims) or not self.parts


class Place(NamedTuple):
    """How far an answer has come: the value, and which of its parts was the last; None if it came whole."""

    value: int
    part: int | None


class Answer:
    """The values of one answer, in the order asked for."""

    def __init__(self, values: Sequence[Expected]) -> None:
        self._values = values

    def follow(self, place: Place | None, head: tensor_pb2.TensorHeader) -> tuple[Place, Header]:
        """Where the answer is with one tensor more, and what is known of that one.

        Raises:
            ProtocolError: it is not what comes next, or has another shape or type.
        """
        method, _, part = head.name.partition(".")
        found = self._next_part(place, method, part)
        if found is None:
            found = self._next_value(place, head.name, method, part)
        header = checked_header(head)
        self._require_fits(found, header)
        return found, header

    def is_parts(self, place: Place) -> bool:
        """Whether the value is several tensors, which are no factors."""
        return not self._values[place.value].comes_whole

    def ends(self, place: Place) -> bool:
        """Whether nothing more can come for the value: a part that may be absent can still come, or the next value."""
        return place.part is None or place.part == len(self._values[place.value].parts) - 1

    def require_whole(self, place: Place | None) -> None:
        """To be called when the answer is at its end.

        Raises:
            ProtocolError: something is missing.
        """
        self._require_complete(place)
        came = 0 if place is None else place.value + 1
        if came != len(self._values):
            raise ProtocolError(f"received {came} values, {len(self._values)} were asked for")

    def _next_part(self, place: Place | None, method: str, part: str) -> Place | None:
        """A further part of the value that is under way."""
        if place is None or place.part is None or self._values[place.value].name != method:
            return None
        for number in range(place.part + 1, len(parts := self._values[place.value].parts)):
            if parts[number].name == part:
                return Place(place.value, number)
            if not parts[number].optional:
                break
        return None

    def _next_value(self, place: Place | None, name: str, method: str, part: str) -> Place:
        self._require_complete(place)
        index = 0 if place is None else place.value + 1
        if index == len(self._values):
            raise ProtocolError(f"{quoted(name)} arrived after all {index} values that were asked for")
        value = self._values[index]
        if name == value.name and value.comes_whole:
            return Place(index, None)
        if method == value.name and value.parts and part == value.parts[0].name:
            return Place(index, 0)
        raise ProtocolError(f"{quoted(name)} arrived where {value.name} was asked for")

    def _require_complete(self, place: Place | None) -> None:
        if place is None or place.part is None:
            return
        value = self._values[place.value]
        missing = [part.name for part in value.parts[place.part + 1 :] if not part.optional]
        if missing:
            raise ProtocolError(f"{value.name} arrived without its {'factor' if value.dims else 'part'} {missing[0]}")

    def _require_fits(self, place: Place, head: Header) -> None:
        value = self._values[place.value]
        part = None if place.part is None else value.parts[place.part]
        if not (_fits_type(head.dtype, value, part) and _fits_shape(head.dims, head.shape, value, part)):
            sizes = [value.sizes.get(axis, axis) for axis in (part.dims if part else value.dims)]
            wanted = dtypes.name(value.dtype) if part is None and value.dtype is not None else ""
            raise ProtocolError(
                f"{quoted(head.name)} is {dtypes.name(head.dtype)} {listed(head.shape)} {listed(head.dims)}, where "
                f"{wanted} {listed(sizes)} {listed(part.dims if part else value.dims)} was asked for"
            )


def _fits_type(got: torch.dtype, value: Expected, part: Part | None) -> bool:
    wanted = value.dtype if part is None or part.dtype is None else part.dtype
    return got == wanted if wanted is not None else got.is_floating_point


def _fits_shape(dims: tuple[str, ...], shape: tuple[int, ...], value: Expected, part: Part | None) -> bool:
    if part is None:
        return dims == value.dims and value.is_shape(shape)
    if not dims and part.optional:
        return part.dtype is not None and part.dtype.is_floating_point
    return dims == part.dims and all(
        n <= value.sizes.get(axis, n) if part.sparse and number == 0 else n == value.sizes.get(axis, n)
        for number, (axis, n) in enumerate(zip(dims, shape, strict=True))
    )
