"""Times taken in turn (A B, B A, A B ...), so that a machine whose speed drifts slows everything that is compared.

The order changes, as the first may have to pay for memory that a virtual machine's host took back in between.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial

from peers import device
from peers.spread import Median

Action = Callable[[], object]
Timings = dict[str, list[float]]
"""Seconds of each action, one a round."""

WARM_UP_ROUNDS = 2


def seconds(action: Action) -> float:
    """Of one call, until the device has done its work; giving back the memory of its result counts too."""
    device.finish()
    started = time.perf_counter()
    action()
    device.finish()
    return time.perf_counter() - started


def median_seconds(action: Action, times: int) -> float:
    """Of several calls in a row."""
    return statistics.median(seconds(action) for _ in range(times))


def in_turn(actions: Mapping[str, Action], rounds: int, *, times: int = 1, before: Action | None = None) -> Timings:
    """Each action in each round, as `measured_in_turn`.

    Args:
        actions: By name.
        rounds: That count.
        times: Calls in a row within a round, of which the median counts.
        before: Called in front of each round, untimed.
    """
    measures = {name: partial(median_seconds, action, times) for name, action in actions.items()}
    return measured_in_turn(measures, rounds, before=before)


def measured_in_turn(
    measures: Mapping[str, Callable[[], float]], rounds: int, *, before: Action | None = None
) -> Timings:
    """What each tells in each round, after `WARM_UP_ROUNDS` that warm up all alike and do not count.

    Args:
        measures: Each does something and tells the seconds that it took.
        rounds: That count.
        before: Called in front of each round.
    """
    timings: Timings = {name: [] for name in measures}
    for index in range(rounds + WARM_UP_ROUNDS):
        if before is not None:
            before()
        in_order = list(measures.items())
        for name, measure in in_order if index % 2 else reversed(in_order):
            taken = measure()
            if index >= WARM_UP_ROUNDS:
                timings[name].append(taken)
    return timings


def ratio(timings: Timings, over: str, under: str) -> Median:
    """Of the ratios of each round."""
    return Median.of(a / b for a, b in zip(timings[over], timings[under], strict=True))


def median_ms(timings: Timings, name: str) -> float:
    """Milliseconds, for the report."""
    return round(1e3 * statistics.median(timings[name]), 3)
