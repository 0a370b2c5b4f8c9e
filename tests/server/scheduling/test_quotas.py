"""What owners take within a minute and an hour, and when there is room again."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.errors import BusyError, InvalidRequestError, TooLargeError
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.scheduling.quotas import Quotas, allowed_by


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_what_is_over_the_quota_is_refused_with_the_numbers_and_a_time(clock: Clock) -> None:
    quotas = Quotas(clock, {("positions", "minute"): 100})
    quotas.take("alice", "positions", 60)
    clock.now += 20
    quotas.take("alice", "positions", 40)
    with pytest.raises(BusyError) as refused:
        quotas.take("alice", "positions", 50)
    assert refused.value.message == (
        "this takes 50 positions; you have taken 100 of the 100 that an owner may take per minute here; "
        "try again in 41 s"
    )
    assert refused.value.reason == "QUOTA_EXCEEDED"
    assert refused.value.retry_after_s == 41
    assert refused.value.metadata == {
        "quota": "positions_per_minute",
        "needed": "50",
        "used": "100",
        "allowed": "100",
    }
    quotas.take("bob", "positions", 100)
    quotas.take("alice", "bytes", 10**12)


def test_there_is_room_when_it_was_said_to_be(clock: Clock) -> None:
    quotas = Quotas(clock, {("bytes", "minute"): 100})
    for amount in (50, 30, 20):
        quotas.take("alice", "bytes", amount)
        clock.now += 7.5
    with pytest.raises(BusyError) as refused:
        quotas.take("alice", "bytes", 60)
    assert refused.value.retry_after_s is not None
    clock.now += refused.value.retry_after_s - 0.01
    with pytest.raises(BusyError):
        quotas.take("alice", "bytes", 60)
    clock.now += 0.02
    quotas.take("alice", "bytes", 60)


def test_what_can_never_fit_is_told_so(clock: Clock) -> None:
    quotas = Quotas(clock, {("positions", "hour"): 10, ("bytes", "minute"): 20})
    with pytest.raises(TooLargeError) as refused:
        quotas.take("alice", "positions", 11)
    assert refused.value.message == (
        "this takes 11 positions, and an owner may take 10 per hour here; run fewer or shorter sentences at once"
    )
    assert (refused.value.reason, refused.value.retry_after_s) == ("TOO_LONG", None)
    with pytest.raises(TooLargeError) as refused:
        quotas.take("alice", "bytes", 21)
    assert refused.value.reason == "TOO_LARGE"
    assert quotas.taken() == {}


def test_what_was_refused_or_not_taken_does_not_count(clock: Clock) -> None:
    quotas = Quotas(clock, {("bytes", "minute"): 100})
    with quotas.counted("alice", "bytes", 90) as took:
        took(10)
        took(20)
        with pytest.raises(BusyError):
            quotas.take("alice", "bytes", 11)
    assert quotas.taken()["alice"]["bytes", "minute"] == 30
    with pytest.raises(ZeroDivisionError), quotas.counted("alice", "bytes", 70):
        raise ZeroDivisionError
    assert quotas.taken()["alice"] == {
        ("positions", "minute"): 0,
        ("positions", "hour"): 0,
        ("bytes", "minute"): 30,
        ("bytes", "hour"): 30,
    }


def test_owners_are_forgotten_an_hour_after_they_took_something(clock: Clock) -> None:
    quotas = Quotas(clock)
    quotas.take("alice", "positions", 5)
    clock.now += 1800
    quotas.take("bob", "positions", 5)
    assert quotas.taken()["alice"]["positions", "minute"] == 0
    clock.now += 1860
    assert list(quotas.taken()) == ["bob"]
    clock.now += 3660
    quotas.forget()
    assert quotas._accounts == {}
    quotas.give_back("alice", "positions", 5)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.floats(0, 30)), min_size=1, max_size=40))
def test_within_no_minute_more_is_taken_than_allowed_and_who_comes_as_told_gets_it(
    steps: list[tuple[int, float]],
) -> None:
    clock = Clock()
    quotas, taken = Quotas(clock, {("positions", "minute"): 100}), list[tuple[float, int]]()
    for amount, pause_s in steps:
        clock.now += pause_s
        wait_s = 0.0
        try:
            quotas.take("alice", "positions", amount)
        except BusyError as error:
            wait_s = error.retry_after_s or 0.0
        assert 0 <= wait_s <= 61
        if wait_s:
            clock.now += wait_s + 1e-6
            quotas.take("alice", "positions", amount)
        taken.append((clock.now, amount))
    for first, last in itertools.combinations_with_replacement(range(len(taken)), 2):
        if taken[last][0] - taken[first][0] < 60:
            assert sum(amount for _, amount in taken[first : last + 1]) <= 100


def test_quotas_are_settings_that_need_owners() -> None:
    config = ServerConfig.of({"owner_positions_per_minute": 5, "owner_bytes_per_hour": 7})
    with pytest.raises(InvalidRequestError) as refused:
        allowed_by(config)
    assert refused.value.message == (
        "owner_positions_per_minute, owner_bytes_per_hour have no effect here: require tokens or client certificates"
    )
    assert allowed_by(ServerConfig()) == {}
    of_owners = ServerConfig.of({"owner_positions_per_hour": 0, "owner_bytes_per_minute": 7, "tokens_file": "x"})
    assert allowed_by(of_owners) == {("positions", "hour"): 0, ("bytes", "minute"): 7}
