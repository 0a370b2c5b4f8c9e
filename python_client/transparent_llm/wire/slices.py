"""Slices of named axes, applied where the tensor lives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch

from transparent_llm.quoting import quoted
from transparent_llm.selection import invalid_slice
from transparent_llm.wire._gen import tensor_pb2


def cut(shape: Sequence[int], dims: Sequence[str], slices: Iterable[tensor_pb2.AxisSlice]) -> tuple[slice, ...] | None:
    """One slice for each axis, with starts and stops within it; None where nothing is cut.

    However many there are, no more of them are looked at than there are axes, and one.

    Raises:
        InvalidRequestError: an axis that the tensor does not have, an axis twice, or a step below 1.
    """
    index = [slice(0, size, 1) for size in shape]
    seen: set[str] = set()
    for part in slices:
        if part.axis not in dims:
            raise invalid_slice(part.axis, f"there is no axis {quoted(part.axis)}; this tensor has {', '.join(dims)}")
        if part.axis in seen:
            raise invalid_slice(part.axis, f"axis {part.axis!r} is sliced twice; give each axis once")
        seen.add(part.axis)
        axis = list(dims).index(part.axis)
        index[axis] = _python_slice(part, shape[axis])
    return tuple(index) if seen else None


def select(tensor: torch.Tensor, dims: Sequence[str], slices: Iterable[tensor_pb2.AxisSlice]) -> torch.Tensor:
    """The part of `tensor` that the slices name; a view, nothing is copied. Raises as `cut` does."""
    index = cut(tensor.shape, dims, slices)
    return tensor if index is None else tensor[index]


def to_wire(axes: Mapping[str, slice]) -> list[tensor_pb2.AxisSlice]:
    """Python slices of named axes, as messages."""
    return [
        tensor_pb2.AxisSlice(axis=axis, start=part.start, stop=part.stop, step=part.step) for axis, part in axes.items()
    ]


def _python_slice(part: tensor_pb2.AxisSlice, size: int) -> slice:
    """Within the axis: torch overflows where Python does not."""
    start = part.start if part.HasField("start") else None
    stop = part.stop if part.HasField("stop") else None
    step = part.step if part.HasField("step") else None
    if step is not None and step < 1:
        raise invalid_slice(part.axis, f"step {step} on axis {part.axis!r}: a step must be at least 1")
    start, stop, step = slice(start, stop, step).indices(size)
    return slice(start, stop, min(step, max(size, 1)))
