"""Jobs that cost: whoever has had least is next, whatever others have waiting."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm_server.scheduling.fair_queue import FairQueue

FLOWS = "abcd"


def filled(*jobs: str, cost: int = 1) -> FairQueue[str]:
    queue: FairQueue[str] = FairQueue()
    for job in jobs:
        queue.put(job[0], job, cost)
    return queue


def all_of(queue: FairQueue[str]) -> list[str]:
    return [queue.take() for _ in range(len(queue))]


def test_a_place_is_told_as_the_turns_will_be() -> None:
    queue: FairQueue[str] = FairQueue()
    jobs = [("a", "a1", 5), ("a", "a2", 5), ("b", "b1", 1), ("b", "b2", 20), ("c", "c1", 8), ("a", "a3", 1)]
    for flow, job, cost in jobs:
        queue.put(flow, job, cost)
    queue.take()
    places = {job: queue.before(job) for job in list(queue)}
    assert [job for job, _ in sorted(places.items(), key=lambda place: place[1])] == [
        queue.take() for _ in range(len(places))
    ]
    assert sorted(places.values()) == list(range(len(jobs) - 1))
    assert not queue


def test_equal_jobs_are_taken_in_turn() -> None:
    queue = filled("a1", "a2", "a3", "b1", "b2")
    assert (bool(queue), len(queue), sorted(queue)) == (True, 5, ["a1", "a2", "a3", "b1", "b2"])
    taken = all_of(queue)
    assert {*taken[:2]} == {"a1", "b1"}
    assert {*taken[2:4]} == {"a2", "b2"}
    assert (taken[4], bool(queue)) == ("a3", False)


def test_who_comes_while_another_has_the_model_is_next() -> None:
    queue = filled("a1", "a2", "a3")
    assert queue.take() == "a1"
    queue.put("b", "b1")
    assert queue.take() == "b1"


def test_a_large_job_costs_as_many_turns_as_it_is_large() -> None:
    queue = filled("b1", "b2", "b3", "b4", "b5", "b6")
    queue.put("a", "a1", cost=4)
    queue.put("a", "a2", cost=4)
    taken = all_of(queue)
    assert taken.index("a1") == 0
    assert taken.index("a2") in (4, 5)  # b has had four by then


def test_who_waited_for_nothing_has_saved_nothing_up() -> None:
    queue = filled(*[f"a{i}" for i in range(20)])
    for _ in range(10):
        queue.take()
    for i in range(10):
        queue.put("b", f"b{i}")
    taken = all_of(queue)
    assert [sum(job[0] == "b" for job in taken[: 2 * n]) for n in (1, 2, 5, 10)] == [1, 2, 5, 10]


def test_who_leaves_and_comes_back_is_charged_with_what_it_had() -> None:
    queue = filled("b1", "b2", "b3", "b4", "b5")
    queue.put("a", "a1", cost=3)
    assert queue.take() == "a1"
    queue.put("a", "a2", cost=3)
    assert [queue.take(), queue.take(), queue.take()] == ["b1", "b2", "b3"]


def test_what_a_flow_had_beside_the_queue_counts() -> None:
    queue = filled("b1", "b2", "b3", "a1")
    queue.charge("a", 2)
    assert all_of(queue).index("a1") == 2


def test_room_is_made_by_who_has_clearly_most() -> None:
    queue = filled("a1", "a2", "a3", "b1")
    assert queue.make_room("a") is None
    assert (queue.make_room("b"), len(queue)) == ("a3", 3)
    assert queue.make_room("b") is None
    assert (queue.make_room("c"), queue.count("a")) == ("a2", 1)
    assert queue.make_room("c") is None
    assert filled().make_room("a") is None


def test_what_is_dropped_costs_nothing() -> None:
    queue = filled("a1", "b1", "a2", "b2", cost=100)
    queue.drop(lambda job: job == "a1")
    assert len(queue) == 3
    first = queue.take()
    assert queue.take()[0] != first[0]
    queue.drop(bool)
    assert not queue


def test_connections_that_come_once_are_forgotten_and_keep_nobody_from_a_turn() -> None:
    """Without owners anybody can be somebody new at each run."""
    queue: FairQueue[str] = FairQueue()
    for i in range(3):
        queue.put("steady", f"steady {i}")
    turns = []
    for i in range(300):
        for k in range(2 if i == 0 else 1):
            queue.put(f"new {i}.{k}", "new")
        turns.append(queue.take())
    assert len(queue._had) < 12
    assert sum(job != "new" for job in turns) == 3
    assert turns.index("steady 2") < 12


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from(FLOWS), st.integers(1, 50)), min_size=1, max_size=60))
def test_of_flows_that_wait_none_has_had_more_than_a_job_beyond_another(jobs: list[tuple[str, int]]) -> None:
    """The bound of fair queueing, whatever the jobs: while two flows wait, they differ by no more than two jobs."""
    queue: FairQueue[tuple[str, int]] = FairQueue()
    left: Counter[str] = Counter()
    for flow, cost in jobs:
        queue.put(flow, (flow, cost), cost)
        left[flow] += 1
    largest, had = max(cost for _, cost in jobs), Counter[str]()
    taken = []
    while queue:
        flow, cost = queue.take()
        taken.append((flow, cost))
        had[flow] += cost
        left[flow] -= 1
        waiting = [other for other in left if left[other]]
        if waiting:
            least = min(had[other] for other in waiting)
            assert all(had[other] - least <= largest for other in waiting)
    assert sorted(taken) == sorted(jobs)
    for flow in FLOWS:
        assert [job for job in taken if job[0] == flow] == [job for job in jobs if job[0] == flow]
