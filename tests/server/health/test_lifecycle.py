"""Loading, serving, draining: who is told, and what a call hears."""

from __future__ import annotations

import pytest

from transparent_llm.errors import UnavailableError
from transparent_llm_server.lifecycle import Lifecycle, State


@pytest.fixture
def told() -> list[bool]:
    """What `on_change` heard, in order."""
    return []


@pytest.fixture
def lifecycle(told: list[bool]) -> Lifecycle:
    return Lifecycle(told.append, retry_after_s=2.5)


def refusal(lifecycle: Lifecycle) -> UnavailableError:
    with pytest.raises(UnavailableError) as refused:
        lifecycle.require_serving()
    return refused.value


def test_a_server_begins_with_loading_and_says_that_it_does_not_serve(lifecycle: Lifecycle, told: list[bool]) -> None:
    assert lifecycle.state is State.LOADING
    assert told == [False]


def test_health_hears_of_every_change(lifecycle: Lifecycle, told: list[bool]) -> None:
    for state in (State.SERVING, State.DRAINING):
        lifecycle.enter(state)
        assert lifecycle.state is state
    assert told == [False, True, False]


def test_the_state_has_changed_when_health_hears_of_it() -> None:
    seen: list[State] = []

    def look(serving: bool) -> None:
        if serving:
            seen.append(server.state)

    server = Lifecycle(look, retry_after_s=1.0)
    server.enter(State.SERVING)
    assert seen == [State.SERVING]


def test_a_serving_server_lets_calls_pass(lifecycle: Lifecycle) -> None:
    lifecycle.enter(State.SERVING)
    lifecycle.require_serving()


def test_a_loading_server_says_when_to_come_back(lifecycle: Lifecycle) -> None:
    error = refusal(lifecycle)
    assert error.message == "the server is loading its models; try again in 2.5 s"
    assert error.reason == "LOADING"
    assert error.retry_after_s == 2.5


def test_a_draining_server_sends_calls_elsewhere(lifecycle: Lifecycle) -> None:
    lifecycle.enter(State.DRAINING)
    error = refusal(lifecycle)
    assert error.message == "the server is shutting down; connect to another one"
    assert error.reason == "DRAINING"
    assert error.retry_after_s is None


def test_a_leaving_server_still_answers_but_is_not_healthy(lifecycle: Lifecycle, told: list[bool]) -> None:
    for state in (State.SERVING, State.LEAVING):
        lifecycle.enter(state)
    lifecycle.require_serving()
    assert told == [False, True, False]


@pytest.mark.parametrize("last", [State.LEAVING, State.DRAINING])
def test_a_server_that_ends_never_serves_again(lifecycle: Lifecycle, told: list[bool], last: State) -> None:
    for state in (State.SERVING, last, State.SERVING, State.LOADING):
        lifecycle.enter(state)
    assert lifecycle.state is last
    assert told == [False, True, False]


def test_a_draining_server_does_not_go_back_to_leaving(lifecycle: Lifecycle) -> None:
    for state in (State.SERVING, State.DRAINING, State.LEAVING):
        lifecycle.enter(state)
    assert refusal(lifecycle).reason == "DRAINING"
