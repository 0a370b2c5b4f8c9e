"""Shapes that came from elsewhere: looked at before anything is multiplied, allocated or written about them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from transparent_llm.quoting import listed

MOST_AXES = 8
"""Of any tensor of this protocol; none has more than four."""

_SIZE_LIMIT = 2**47
"""What no axis reaches, nor all of them together: a process can address no more bytes."""


class ShapeError(Exception):
    """No tensor can have this shape."""


def checked_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape that a tensor can have.

    Raises:
        ShapeError: too many axes, or more elements than can be counted. An axis without elements excuses no other one.
    """
    if len(shape) > MOST_AXES:
        raise ShapeError(f"no tensor has {len(shape)} axes, at most {MOST_AXES}")
    sizes = tuple(shape)
    if math.prod([max(size, 1) for size in sizes]) >= _SIZE_LIMIT or min(sizes, default=0) < 0:
        raise ShapeError(f"no tensor can have the shape {listed(sizes)}")
    return sizes
