"""Slices of named axes, applied where the tensor lives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from transparent_llm.quoting import quoted
from transparent_llm.selection import invalid_slice
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.shape import MOST_AXES

Axes = Iterable[tuple[str, slice]]
"""Parts of axes by name, as they were asked for: any of them may be wrong."""


def cut(shape: Sequence[int], dims: Sequence[str], axes: Axes) -> tuple[slice, ...] | None:
    """One slice for each axis, with starts and stops within it; None where nothing is cut.

    Raises:
        InvalidRequestError: an axis that the tensor does not have, an axis twice, or a step below 1.
    """
    index = [slice(0, size, 1) for size in shape]
    seen: set[str] = set()
    for axis, part in axes:
        if axis not in dims:
            raise invalid_slice(axis, f"there is no axis {quoted(axis)}; this tensor has {', '.join(dims)}")
        if axis in seen:
            raise invalid_slice(axis, f"axis {axis!r} is sliced twice; give each axis once")
        seen.add(axis)
        place = list(dims).index(axis)
        index[place] = _within(axis, part, shape[place])
    return tuple(index) if seen else None


def to_wire(axes: Axes) -> list[tensor_pb2.AxisSlice]:
    """Python slices of named axes, as messages."""
    return [tensor_pb2.AxisSlice(axis=axis, start=part.start, stop=part.stop, step=part.step) for axis, part in axes]


def from_wire(messages: Iterable[tensor_pb2.AxisSlice]) -> tuple[tuple[str, slice], ...]:
    """What messages ask for. However many there are, no more are read than `cut` looks at before it refuses them."""
    return tuple((each.axis, _python_slice(each)) for each in islice(messages, MOST_AXES + 1))


def _python_slice(part: tensor_pb2.AxisSlice) -> slice:
    start = part.start if part.HasField("start") else None
    stop = part.stop if part.HasField("stop") else None
    step = part.step if part.HasField("step") else None
    return slice(start, stop, step)


def _within(axis: str, part: slice, size: int) -> slice:
    """The same part, with bounds within the axis: torch overflows where Python does not."""
    if part.step is not None and part.step < 1:
        raise invalid_slice(axis, f"step {part.step} on axis {axis!r}: a step must be at least 1")
    start, stop, step = part.indices(size)
    return slice(start, stop, min(step, max(size, 1)))
