"""What must come for what was asked: each tensor of an answer is held to it by its header, before it has any memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from transparent_llm.quoting import listed, quoted
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.headers import checked_header
from transparent_llm.wire.protocol_error import ProtocolError


@dataclass(frozen=True)
class FactorKind:
    """A factor that a value can come as, see ENCODING_FACTORED in tensor.proto."""

    name: str
    dims: tuple[str, ...]
    dtype: torch.dtype | None = None
    """None: that of the value."""

    optional: bool = False
    """Then it can also be a scalar, if it is floating."""


FACTORS: dict[str, tuple[FactorKind, ...]] = {
    "decomposed_attn": (
        FactorKind("pattern", ("head", "target", "source")),
        FactorKind("value_out", ("source", "head", "d_model"), torch.float32),
        FactorKind("gain", ("target", "d_model"), torch.float32, optional=True),
    ),
    "decomposed_ffn_out": (
        FactorKind("activations", ("d_ffn",)),
        FactorKind("gain", ("d_model",), torch.float32, optional=True),
        FactorKind("spans", ("span", "bound"), torch.int64, optional=True),
    ),
}
"""In the order in which they come."""

_AT_MOST = frozenset({"d_ffn", "span"})
"""Axes of factors that can be shorter: of experts that were not chosen nothing comes."""


@dataclass(frozen=True)
class Expected:
    """One value that was asked for: what its header must say."""

    name: str
    """Of the method."""

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    """Of its axes, and of those of its factors, as far as they are known: cut as was asked."""

    dtype: torch.dtype | None = None
    """None: any floating one."""

    factored: bool = False
    """Whether factors will do."""

    def is_shape(self, shape: Sequence[int]) -> bool:
        """Whether the value can have this shape, as far as its sizes are known."""
        return len(shape) == len(self.dims) and all(
            self.sizes.get(axis, n) == n for axis, n in zip(self.dims, shape, strict=True)
        )

    @property
    def factors(self) -> tuple[FactorKind, ...]:
        """That it can come as."""
        return FACTORS.get(self.name, ()) if self.factored else ()


@dataclass(frozen=True)
class Place:
    """How far an answer has come: the value, and which of its factors was the last; None if it came whole."""

    value: int
    factor: int | None


class Answer:
    """The values of one answer, in the order asked for."""

    def __init__(self, values: Sequence[Expected]) -> None:
        self._values = values

    def follow(self, place: Place | None, head: tensor_pb2.TensorHeader) -> Place:
        """Where the answer is with one tensor more.

        Raises:
            ProtocolError: it is not what comes next, or has another shape or type.
        """
        method, _, factor = head.name.partition(".")
        found = self._next_factor(place, method, factor)
        if found is None:
            found = self._next_value(place, head.name, method, factor)
        self._require_fits(found, head)
        return found

    def require_whole(self, place: Place | None) -> None:
        """To be called when the answer is at its end.

        Raises:
            ProtocolError: something is missing.
        """
        self._require_complete(place)
        came = 0 if place is None else place.value + 1
        if came != len(self._values):
            raise ProtocolError(f"received {came} values, {len(self._values)} were asked for")

    def _next_factor(self, place: Place | None, method: str, factor: str) -> Place | None:
        """A further factor of the value that is under way."""
        if place is None or place.factor is None or self._values[place.value].name != method:
            return None
        for number in range(place.factor + 1, len(kinds := self._values[place.value].factors)):
            if kinds[number].name == factor:
                return Place(place.value, number)
            if not kinds[number].optional:
                break
        return None

    def _next_value(self, place: Place | None, name: str, method: str, factor: str) -> Place:
        self._require_complete(place)
        index = 0 if place is None else place.value + 1
        if index == len(self._values):
            raise ProtocolError(f"{quoted(name)} arrived after all {index} values that were asked for")
        value = self._values[index]
        if method == value.name and not factor:
            return Place(index, None)
        if method == value.name and value.factors and factor == value.factors[0].name:
            return Place(index, 0)
        raise ProtocolError(f"{quoted(name)} arrived where {value.name} was asked for")

    def _require_complete(self, place: Place | None) -> None:
        if place is None or place.factor is None:
            return
        value = self._values[place.value]
        missing = [kind.name for kind in value.factors[place.factor + 1 :] if not kind.optional]
        if missing:
            raise ProtocolError(f"{value.name} arrived without its factor {missing[0]}")

    def _require_fits(self, place: Place, head: tensor_pb2.TensorHeader) -> None:
        value, kind = self._values[place.value], None
        dtype, shape = checked_header(head)
        if place.factor is not None:
            kind = value.factors[place.factor]
        if not (_fits_type(dtype, value, kind) and _fits_shape(tuple(head.dims), shape, value, kind)):
            sizes = [value.sizes.get(axis, axis) for axis in (kind.dims if kind else value.dims)]
            wanted = dtypes.name(value.dtype) if kind is None and value.dtype is not None else ""
            raise ProtocolError(
                f"{quoted(head.name)} is {dtypes.name(dtype)} {listed(shape)} {listed(head.dims)}, where "
                f"{wanted} {listed(sizes)} {listed(kind.dims if kind else value.dims)} was asked for"
            )


def _fits_type(got: torch.dtype, value: Expected, kind: FactorKind | None) -> bool:
    wanted = value.dtype if kind is None or kind.dtype is None else kind.dtype
    return got == wanted if wanted is not None else got.is_floating_point


def _fits_shape(dims: tuple[str, ...], shape: tuple[int, ...], value: Expected, kind: FactorKind | None) -> bool:
    if kind is None:
        return dims == value.dims and value.is_shape(shape)
    if not dims:
        return kind.optional and kind.dtype is torch.float32
    return dims == kind.dims and all(
        n <= value.sizes.get(axis, n) if axis in _AT_MOST else n == value.sizes.get(axis, n)
        for axis, n in zip(dims, shape, strict=True)
    )
