"""Reads that another thread fetches: waited for, dropped, and forgotten when they fail."""

from __future__ import annotations

import os
import threading

import pytest

from transparent_llm.client.prefetch import Prefetches
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.errors import UnavailableError

SOON = 30


def test_who_wants_a_value_waits_until_it_has_come() -> None:
    under_way, may_go, done = Prefetches(), threading.Event(), []

    def fetch(_: Interruptible) -> None:
        assert may_go.wait(SOON)
        done.append("fetched")

    under_way.begin(["a", "b"], fetch)
    assert "a" in under_way
    assert "b" in under_way
    assert "c" not in under_way
    threading.Timer(0.05, may_go.set).start()
    under_way.wait_for("a")
    assert done == ["fetched"]
    assert "a" not in under_way
    under_way.wait_for("b")


def test_what_is_not_under_way_is_not_waited_for() -> None:
    Prefetches().wait_for("a")


def test_a_fetch_that_fails_ends_the_wait() -> None:
    under_way = Prefetches()

    def fetch(_: Interruptible) -> None:
        raise UnavailableError("no server")

    under_way.begin(["a"], fetch)
    under_way.wait_for("a")
    assert "a" not in under_way


def test_a_fetch_that_is_held_up_is_given_up_and_asked_for_again() -> None:
    """By the caller's own function for progress, perhaps, which waits for the caller."""
    under_way, may_end, given_up = Prefetches(patience_s=0.05), threading.Event(), threading.Event()

    def fetch(interruptible: Interruptible) -> None:
        interruptible.attach(Cancelled(given_up))
        may_end.wait(SOON)

    under_way.begin(["a"], fetch)
    under_way.wait_for("a")
    assert given_up.wait(SOON)
    assert "a" not in under_way
    may_end.set()


def test_a_fetch_that_fails_in_any_way_is_forgotten(recwarn: pytest.WarningsRecorder) -> None:
    def fetch(_: Interruptible) -> None:
        raise MemoryError

    under_way = Prefetches()
    under_way.begin(["a"], fetch)
    under_way.wait_for("a")
    assert not recwarn.list


class Cancelled:
    def __init__(self, event: threading.Event) -> None:
        self.cancel = event.set


class Call:
    """What gRPC gives for a call: it can be cancelled."""

    def __init__(self) -> None:
        self.cancelled = threading.Event()

    def cancel(self) -> None:
        self.cancelled.set()


@pytest.mark.parametrize("begins", ["before", "after"])
def test_dropping_cancels_the_call_that_goes_on_or_that_would_follow(begins: str) -> None:
    under_way, call, begun, dropped = Prefetches(), Call(), threading.Event(), threading.Event()

    def fetch(interruptible: Interruptible) -> None:
        if begins == "after":
            assert dropped.wait(SOON)
        with interruptible:
            interruptible.attach(call)
            begun.set()
            assert call.cancelled.wait(SOON)

    under_way.begin(["a"], fetch)
    if begins == "before":
        assert begun.wait(SOON)
    under_way.drop()
    dropped.set()
    assert call.cancelled.wait(SOON)
    assert "a" not in under_way


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_process_does_not_wait_for_a_thread_that_it_has_not() -> None:
    under_way, may_go = Prefetches(), threading.Event()
    under_way.begin(["a"], lambda _: may_go.wait(SOON))
    child = os.fork()
    if child == 0:
        under_way.wait_for("a")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    may_go.set()
    under_way.wait_for("a")
