"""Whether a call ended for want of time, on a clock that a test sets."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from transparent_llm_server.rpc.deadline import Deadline

NO_DEADLINE = 1e15


@dataclass
class Clock:
    """All of a call's context that a deadline asks."""

    seconds: float

    def time_remaining(self) -> float:
        return self.seconds


@pytest.mark.parametrize(
    ("given_s", "left_s", "is_over"),
    [
        (30.0, 30.0, False),
        (30.0, 0.5, False),
        (30.0, 0.35, True),  # the way of the request, and 1 % by which gRPC may have rounded
        (30.0, 0.0, True),
        (30.0, -2.0, True),
        (0.5, 0.2, False),
        (0.5, 0.1, True),
        (NO_DEADLINE, NO_DEADLINE, False),
    ],
)
def test_a_call_that_ends_shortly_before_its_deadline_ends_because_of_it(
    given_s: float, left_s: float, is_over: bool
) -> None:
    clock = Clock(given_s)
    deadline = Deadline(clock)  # type: ignore[arg-type]
    clock.seconds = left_s
    assert deadline.is_over() is is_over


def test_a_call_without_a_deadline_can_be_waited_for() -> None:
    assert Deadline(Clock(NO_DEADLINE)).remaining_s == threading.TIMEOUT_MAX  # type: ignore[arg-type]
