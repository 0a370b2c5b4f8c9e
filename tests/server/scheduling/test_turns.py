"""Owners in turn: on the model thread, and where the interpreter is needed for long."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.servers.engines import held
from support.servers.polling import wait_until
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.floor import Floor
from transparent_llm_server.scheduling.turns import Turns


def test_each_owner_has_a_turn_before_one_has_the_next() -> None:
    turns: Turns[str] = Turns()
    for job in ("a1", "a2", "a3", "b1", "c1", "c2"):
        turns.put(job[0], job)
    assert sorted(turns) == ["a1", "a2", "a3", "b1", "c1", "c2"]
    assert [turns.take() for _ in range(6)] == ["a1", "b1", "c1", "a2", "c2", "a3"]
    assert not turns


def test_whoever_comes_back_is_behind_the_others() -> None:
    turns: Turns[str] = Turns()
    for job in ("a1", "b1"):
        turns.put(job[0], job)
    assert turns.take() == "a1"
    turns.put("a", "a2")
    assert [turns.take(), turns.take()] == ["b1", "a2"]


def filled(*jobs: str) -> Turns[str]:
    turns: Turns[str] = Turns()
    for job in jobs:
        turns.put(job[0], job)
    return turns


def test_an_owner_can_be_left_out_and_keeps_the_turn() -> None:
    turns = filled("a1", "a2", "b1", "c1")
    assert [turns.next_owner(()), turns.next_owner({"a"}), turns.next_owner({"a", "b", "c"})] == ["a", "b", None]
    assert [turns.take_of("b"), turns.take(), turns.take(), turns.take()] == ["b1", "a1", "c1", "a2"]


def test_who_has_most_waiting_is_known_and_gives_back_the_last() -> None:
    turns = filled("a1", "b1", "b2", "c1")
    assert (turns.busiest_owner(), turns.count("b"), turns.count("x"), len(turns)) == ("b", 2, 0, 4)
    assert [turns.take_back("b"), turns.take_back("b"), turns.take_back("a")] == ["b2", "b1", "a1"]
    assert (turns.busiest_owner(), len(turns)) == ("c", 1)
    assert filled().busiest_owner() is None


def test_a_job_that_is_dropped_takes_no_turn_from_its_owners_others() -> None:
    turns = filled("a1", "a2", "b1")
    turns.drop("a", lambda job: job == "a1")
    turns.drop("b", bool)
    turns.drop("nobody", bool)
    assert list(turns) == ["a2"]


def test_a_read_waits_for_one_read_of_each_other_owner_however_many_there_are() -> None:
    engine, order = Engine(queue_length=1, retry_after_s=1.0), []
    with held(engine):
        begun = [engine.submit_read(lambda i=i: order.append(f"busy {i}"), "busy") for i in range(20)]  # type: ignore[misc]
        begun.append(engine.submit_read(lambda: order.append("other"), "other"))
    for each in begun:
        each.result(timeout=30)
    assert order.index("other") <= 1
    engine.close()


def test_the_floor_is_one_calls_at_a_time_and_owners_take_turns() -> None:
    floor, order, inside = Floor(), [], []

    def speak(owner: str) -> None:
        with floor.turn(owner):
            inside.append(owner)
            order.append(owner)
            assert len(inside) == 1
            inside.remove(owner)

    with ThreadPoolExecutor(8) as threads:
        with floor.turn("first"):
            speaking = []
            for count, owner in enumerate(["busy", "busy", "busy", "other"], 1):
                speaking.append(threads.submit(speak, owner))
                wait_until(lambda count=count: len(list(floor._waiting)) == count)  # type: ignore[misc]
            assert order == []
        for each in speaking:
            each.result(timeout=30)
    assert order == ["busy", "other", "busy", "busy"]


def test_the_floor_is_free_after_an_error() -> None:
    floor = Floor()
    with pytest.raises(ValueError, match="mine"), floor.turn(""):
        raise ValueError("mine")
    done = threading.Event()
    with floor.turn(""):
        done.set()
    assert done.is_set()
