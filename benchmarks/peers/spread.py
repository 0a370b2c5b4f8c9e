"""A median that knows how far the values lie apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterable


class Median(float):
    """The median of some values, with their quartiles."""

    quartiles: tuple[float, float]

    @classmethod
    def of(cls, values: Iterable[float]) -> Median:
        """Of one or more."""
        found = sorted(values)
        median = cls(statistics.median(found))
        first, _, third = statistics.quantiles(found, n=4, method="inclusive") if len(found) > 1 else found * 3
        median.quartiles = (first, third)
        return median
