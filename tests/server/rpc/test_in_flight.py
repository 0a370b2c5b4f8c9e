"""Who is let in, who gives way, and who is cancelled: by a clock of the test's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from transparent_llm.errors import BusyError
from transparent_llm_server.rpc.concurrency.in_flight import Bounds, CallInFlight, InFlight, Phase


class Calls:
    """Calls in flight at a time that a test sets."""

    def __init__(self, **bounds: object) -> None:
        self.now = 0.0
        self.left: list[str] = []
        given = {"most": 4, "most_of_owner": 4, "most_arriving_of_connection": 4, **bounds}
        self.in_flight = InFlight(Bounds(**given), lambda: self.now)  # type: ignore[arg-type]

    def enter(self, name: str, owner: str = "", connection: str = "one") -> CallInFlight:
        return self.in_flight.enter(name, owner, connection, lambda: self.left.append(name))

    def working(self, name: str, owner: str = "") -> CallInFlight:
        """A call whose request has come."""
        call = self.enter(name, owner, connection=name)
        assert next(self.in_flight.requests(call, iter(["request"]))) == "request"
        return call

    def arrived(self) -> None:
        """Long enough for requests that have begun to come."""
        self.now += 0.06


def test_calls_at_work_keep_their_places() -> None:
    calls = Calls(most=2)
    calls.working("a"), calls.working("b")
    calls.arrived()
    with pytest.raises(BusyError, match="2 calls are already under way"):
        calls.enter("c")
    assert calls.left == []
    assert len(calls.in_flight) == 2


def test_the_oldest_call_without_a_request_gives_way_to_the_next() -> None:
    calls = Calls(most=3)
    calls.working("a"), calls.enter("b"), calls.enter("c")
    calls.arrived()
    calls.enter("d"), calls.enter("e")
    assert calls.left == ["b", "c"]
    with pytest.raises(BusyError):  # d and e have just begun
        calls.enter("f")
    assert len(calls.in_flight) == 3


def test_an_owner_gives_way_to_itself_before_others_do() -> None:
    calls = Calls(most=10, most_of_owner=2)
    calls.enter("mine", owner="other")
    calls.enter("a", owner="attacker"), calls.enter("b", owner="attacker")
    calls.arrived()
    calls.enter("c", owner="attacker")
    assert calls.left == ["a"]
    for name in "de":
        calls.working(name, owner="third")
    with pytest.raises(BusyError, match="2 calls of this owner are already under way"):
        calls.working("f", owner="third")


def test_a_connection_has_only_so_many_calls_without_a_request() -> None:
    calls = Calls(most=10, most_of_owner=10, most_arriving_of_connection=2)
    calls.enter("a"), calls.enter("b"), calls.enter("c", connection="two")
    calls.arrived()
    calls.enter("d", connection="two")
    assert calls.left == []
    calls.enter("e")
    assert calls.left == ["a"]


def test_an_answer_on_its_way_takes_no_place() -> None:
    calls = Calls(most=1)
    calls.in_flight.answered(calls.working("a"), 100)
    calls.working("b")
    calls.now += 2
    with pytest.raises(BusyError):
        calls.working("c")


def test_a_call_is_over_when_the_server_and_grpc_are_done_with_it() -> None:
    calls = Calls()
    for first, second in (("answered", "ended"), ("ended", "answered")):
        call = calls.working("a")
        getattr(calls.in_flight, first)(call)
        assert len(calls.in_flight) == 1
        getattr(calls.in_flight, second)(call)
        assert len(calls.in_flight) == 0


def test_one_that_gave_way_frees_its_place_once() -> None:
    calls = Calls(most=1)
    first = calls.enter("a")
    calls.arrived()
    calls.enter("b")
    calls.in_flight.ended(first), calls.in_flight.answered(first)
    assert len(calls.in_flight) == 1


def test_unread_answers_are_dropped_from_the_oldest_on() -> None:
    calls = Calls(unread_bytes=250)
    for name in "abc":
        calls.in_flight.answered(calls.working(name), 100)
    assert calls.left == ["a"]
    calls.in_flight.answered(calls.working("d"), 1000)
    assert calls.left == ["a", "b", "c"]  # but never the newest, however large it is


def test_calls_that_wait_too_long_for_their_client_are_cancelled_once() -> None:
    calls = Calls(arrival_s=5.0, stall_s=10.0)
    calls.enter("silent"), calls.working("at work")
    offered = calls.in_flight.offers(calls.working("stalled"), iter(["message", "another"]))
    next(offered)
    calls.in_flight.answered(calls.working("unread"), 1)
    calls.now = 6.0
    assert +calls.in_flight.cancel_overdue() == {Phase.ARRIVING: 1}
    calls.now = 11.0
    assert +calls.in_flight.cancel_overdue() == {Phase.OFFERED: 1, Phase.ANSWERED: 1}
    assert +calls.in_flight.cancel_overdue() == {}
    assert calls.left == ["silent", "stalled", "unread"]


def test_a_stream_that_is_taken_is_not_cancelled_while_the_server_works_on_it() -> None:
    calls = Calls(stall_s=1.0)
    call = calls.working("a")

    def messages() -> Iterator[str]:
        yield "first"
        calls.now += 100.0
        assert not calls.in_flight.cancel_overdue().total()
        yield "second"

    assert list(calls.in_flight.offers(call, messages())) == ["first", "second"]


def test_without_limits_nothing_is_cancelled() -> None:
    calls = Calls()
    calls.enter("a")
    calls.now = 1e9
    assert not calls.in_flight.cancel_overdue().total()


def test_those_that_gave_way_are_told_with_those_that_were_late() -> None:
    calls = Calls(most=1)
    calls.enter("a")
    calls.arrived()
    calls.enter("b")
    assert +calls.in_flight.cancel_overdue() == {Phase.ARRIVING: 1}
