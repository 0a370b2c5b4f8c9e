"""The run store: least recently used first, never over its bytes, nothing older than its time."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from transparent_llm.errors import NotFoundError, TooLargeError
from transparent_llm_server.scheduling import run_store as runs
from transparent_llm_server.scheduling.run_store import RunStore

MAX_BYTES, TTL_S = 10, 60.0
IDS = st.sampled_from("abcde")


@dataclass(eq=False)
class StoredRun:
    """Anything with a size."""

    nbytes: int
    storages: Mapping[Hashable, int] = field(default_factory=dict)


class Clock:
    """Time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> RunStore[StoredRun]:
    return RunStore(MAX_BYTES, TTL_S, clock)


def stored(store: RunStore[StoredRun], *ids: str, nbytes: int = 1) -> list[StoredRun]:
    runs = [StoredRun(nbytes) for _ in ids]
    for run_id, run in zip(ids, runs, strict=True):
        store.put(run_id, run)
    return runs


def ids_in(store: RunStore[StoredRun]) -> str:
    """Which of the usual ids are there; looking makes them recently used."""
    return "".join(run_id for run_id in "abcde" if store.find(run_id) is not None)


# One by one


def test_a_stored_run_is_found(store: RunStore[StoredRun]) -> None:
    (run,) = stored(store, "a")
    assert store.get("a") is run
    assert store.find("a") is run


def test_an_unknown_run_is_refused(store: RunStore[StoredRun]) -> None:
    with pytest.raises(NotFoundError) as refused:
        store.get("a")
    assert refused.value.message == "run 'a' was not found: never made, evicted, expired or released; send Run again"
    assert refused.value.reason == "RUN_NOT_FOUND"
    assert refused.value.metadata == {"run_id": "a"}
    assert store.find("a") is None


def test_the_least_recently_used_run_makes_room(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", "c", nbytes=3)
    store.get("a")
    stored(store, "d", nbytes=3)
    assert ids_in(store) == "acd"


def test_finding_a_run_is_using_it(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", nbytes=5)
    store.find("a")
    stored(store, "c", nbytes=5)
    assert ids_in(store) == "ac"


def test_as_many_runs_go_as_the_new_one_needs(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", "c", "d", nbytes=2)
    stored(store, "e", nbytes=6)
    assert ids_in(store) == "cde"
    assert store.nbytes == 10


def test_a_run_that_takes_the_whole_store_is_kept_alone(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b")
    stored(store, "c", nbytes=MAX_BYTES)
    assert ids_in(store) == "c"


def test_a_run_that_can_never_fit_is_refused_and_drives_nobody_out(store: RunStore[StoredRun]) -> None:
    stored(store, "a", nbytes=4)
    with pytest.raises(TooLargeError) as refused:
        stored(store, "a", nbytes=11)
    assert refused.value.message == (
        "this run takes 11 bytes, the server stores 10 of one owner and 10 in all; run fewer or shorter sentences at "
        "once, or start the server with a larger run store"
    )
    assert refused.value.reason == "TOO_LARGE"
    assert refused.value.metadata == {"needed": "11", "allowed": "10"}
    assert store.get("a").nbytes == store.nbytes == 4


def test_a_run_stored_again_replaces_the_first(store: RunStore[StoredRun]) -> None:
    stored(store, "a", nbytes=7)
    (second,) = stored(store, "a", nbytes=8)
    assert store.get("a") is second
    assert (len(store), store.nbytes) == (1, 8)


def test_a_run_stored_again_drives_nobody_out_whom_it_leaves_room(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", nbytes=5)
    stored(store, "b", nbytes=5)
    assert ids_in(store) == "ab"


def test_a_run_stored_again_is_the_most_recently_used(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", nbytes=5)
    stored(store, "a", "c", nbytes=5)
    assert ids_in(store) == "ac"


def test_a_run_that_grows_after_it_was_stored_is_counted_as_it_was(store: RunStore[StoredRun]) -> None:
    (run,) = stored(store, "a", nbytes=3)
    run.nbytes = 8
    store.release("a")
    assert store.nbytes == 0


def test_a_released_run_is_gone(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "b", nbytes=2)
    assert store.release("a")
    assert ids_in(store) == "b"
    assert store.nbytes == 2


def test_releasing_what_is_not_there_says_so(store: RunStore[StoredRun]) -> None:
    assert not store.release("a")


def test_an_evicted_run_is_let_go(store: RunStore[StoredRun]) -> None:
    (run,) = stored(store, "a", nbytes=6)
    watched = weakref.ref(run)
    del run
    stored(store, "b", nbytes=6)
    assert watched() is None


# Time


def test_a_run_is_kept_up_to_its_time(store: RunStore[StoredRun], clock: Clock) -> None:
    stored(store, "a")
    clock.now += TTL_S
    assert store.find("a") is not None


def test_a_run_is_dropped_after_its_time(store: RunStore[StoredRun], clock: Clock) -> None:
    stored(store, "a", nbytes=3)
    clock.now += TTL_S + 0.001
    assert (len(store), store.nbytes) == (0, 0)
    with pytest.raises(NotFoundError):
        store.get("a")


def test_reading_a_run_gives_it_its_time_again(store: RunStore[StoredRun], clock: Clock) -> None:
    stored(store, "a", "b")
    clock.now += TTL_S
    store.get("a")
    clock.now += TTL_S
    assert ids_in(store) == "a"


def test_storing_a_run_lets_go_of_those_past_their_time(store: RunStore[StoredRun], clock: Clock) -> None:
    (run,) = stored(store, "a")
    watched = weakref.ref(run)
    del run
    clock.now += TTL_S + 1
    stored(store, "b")
    assert watched() is None


def test_a_run_past_its_time_is_not_there_to_be_released(store: RunStore[StoredRun], clock: Clock) -> None:
    stored(store, "a")
    clock.now += TTL_S + 1
    assert not store.release("a")


# Counts


def test_it_counts_why_runs_leave(store: RunStore[StoredRun], clock: Clock) -> None:
    stored(store, "a", "b", nbytes=5)
    stored(store, "c", nbytes=6)  # for which both must go
    assert store.counts.evictions == {"room": 2, "age": 0, "released": 0, "unloaded": 0}
    stored(store, "c", nbytes=4)  # in place of the old one, which is no eviction
    assert store.release("c")
    assert not store.release("c")
    stored(store, "d")
    clock.now += TTL_S + 1
    store.expire()
    assert store.counts.evictions == {"room": 2, "age": 1, "released": 1, "unloaded": 0}


def test_it_counts_what_is_found_and_what_is_not(store: RunStore[StoredRun]) -> None:
    stored(store, "a")
    assert store.get("a")
    assert store.find("b") is None
    assert store.find("a", owner="somebody else") is None
    assert (store.counts.hits, store.counts.misses) == (1, 2)


def test_a_run_that_comes_again_after_it_was_dropped_is_counted(store: RunStore[StoredRun]) -> None:
    stored(store, "a", "a")
    assert store.counts.recomputations == 0
    store.release("a")
    stored(store, "a", "a")
    assert store.counts.recomputations == 1


def test_only_so_many_dropped_runs_are_remembered(store: RunStore[StoredRun], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "_REMEMBERED", 2)
    stored(store, "a", "b", "c")
    for run_id in "abc":
        store.release(run_id)
    stored(store, "a", "b", "c")
    assert store.counts.recomputations == 2
    assert len(store._dropped) <= 2


# Threads


def test_bytes_stay_exact_when_many_threads_store_and_release(clock: Clock) -> None:
    store: RunStore[StoredRun] = RunStore(30, TTL_S, clock)
    barrier = threading.Barrier(6)

    def work(worker: int) -> None:
        barrier.wait(30)
        for turn in range(300):
            store.put(f"{(worker + turn) % 9}", StoredRun(1 + turn % 7))
            store.release(f"{turn % 9}")
            store.find(f"{worker}")

    threads = [threading.Thread(target=work, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    left = [run for number in range(9) if (run := store.find(f"{number}")) is not None]
    assert store.nbytes == sum(run.nbytes for run in left) <= 30
    assert len(store) == len(left)


# Any sequence of operations, against a list that is searched from end to end


@dataclass
class Expected:
    """One run as the reference keeps it."""

    run_id: str
    run: StoredRun
    used_at: float


class AgainstAList(RuleBasedStateMachine):
    """The store and the simplest thing that does the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store: RunStore[StoredRun] = RunStore(MAX_BYTES, TTL_S, self.clock)
        self.expected: list[Expected] = []  # least recently used first

    def size(self) -> int:
        return sum(entry.run.nbytes for entry in self.expected)

    def take(self, run_id: str) -> Expected | None:
        found = next((entry for entry in self.expected if entry.run_id == run_id), None)
        self.expected = [entry for entry in self.expected if entry.run_id != run_id]
        return found

    @rule(run_id=IDS, nbytes=st.integers(0, MAX_BYTES))
    def put(self, run_id: str, nbytes: int) -> None:
        run = StoredRun(nbytes)
        self.store.put(run_id, run)
        self.take(run_id)
        while self.size() + nbytes > MAX_BYTES:
            self.expected.pop(0)
        self.expected.append(Expected(run_id, run, self.clock.now))

    @rule(run_id=IDS, nbytes=st.integers(MAX_BYTES + 1, 3 * MAX_BYTES))
    def put_too_large(self, run_id: str, nbytes: int) -> None:
        with pytest.raises(TooLargeError):
            self.store.put(run_id, StoredRun(nbytes))

    @rule(run_id=IDS)
    def find(self, run_id: str) -> None:
        entry = self.take(run_id)
        assert self.store.find(run_id) is (entry.run if entry else None)
        if entry is not None:
            self.expected.append(Expected(run_id, entry.run, self.clock.now))

    @rule(run_id=IDS)
    def release(self, run_id: str) -> None:
        assert self.store.release(run_id) == (self.take(run_id) is not None)

    @rule(seconds=st.floats(0, TTL_S / 2) | st.just(TTL_S))
    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self.expected = [entry for entry in self.expected if entry.used_at >= self.clock.now - TTL_S]

    @precondition(lambda self: self.expected)
    @rule(index=st.integers(0, 4))
    def get_what_is_there(self, index: int) -> None:
        run_id = self.expected[index % len(self.expected)].run_id
        entry = self.take(run_id)
        assert entry is not None
        assert self.store.get(run_id) is entry.run
        self.expected.append(Expected(run_id, entry.run, self.clock.now))

    @invariant()
    def bytes_are_exact(self) -> None:
        assert self.store.nbytes == self.size() <= MAX_BYTES
        assert len(self.store) == len(self.expected)


TestAgainstAList = AgainstAList.TestCase
TestAgainstAList.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


# Owners


@pytest.fixture
def shared(clock: Clock) -> RunStore[StoredRun]:
    """A store of 10 bytes of which an owner may fill 6."""
    return RunStore(MAX_BYTES, TTL_S, clock, max_bytes_per_owner=6)


def test_a_run_is_seen_and_released_by_its_owner_only(shared: RunStore[StoredRun]) -> None:
    shared.put("a", StoredRun(1), "ann")
    assert shared.find("a", "bob") is None
    assert shared.find("a") is None
    assert not shared.release("a", "bob")
    with pytest.raises(NotFoundError, match="run 'a' was not found"):
        shared.get("a", "bob")
    assert shared.get("a", "ann").nbytes == 1
    assert shared.release("a", "ann")
    assert shared.nbytes == 0


def test_an_owner_over_its_budget_loses_its_own_oldest_run(shared: RunStore[StoredRun]) -> None:
    shared.put("b", StoredRun(4), "bob")
    for run_id in ("a1", "a2"):
        shared.put(run_id, StoredRun(3), "ann")
    shared.put("a3", StoredRun(1), "ann")
    assert shared.find("a1", "ann") is None
    assert shared.find("a2", "ann") is not None
    assert shared.find("b", "bob") is not None
    assert shared.nbytes == 8


def test_owners_together_stay_within_the_whole_store(shared: RunStore[StoredRun]) -> None:
    for owner in ("ann", "bob", "cleo"):
        shared.put(owner, StoredRun(5), owner)
    assert shared.find("ann", "ann") is None
    assert shared.nbytes == 10


def test_a_run_over_the_budget_of_an_owner_is_refused_with_both_numbers(shared: RunStore[StoredRun]) -> None:
    with pytest.raises(TooLargeError, match="takes 7 bytes, the server stores 6 of one owner and 10 in all") as refused:
        shared.put("a", StoredRun(7), "ann")
    assert refused.value.metadata == {"needed": "7", "allowed": "6"}


def test_an_owners_oldest_run_is_the_one_read_least_recently(shared: RunStore[StoredRun]) -> None:
    for run_id in ("a1", "a2"):
        shared.put(run_id, StoredRun(3), "alice")
    shared.put("b1", StoredRun(1), "bob")
    shared.get("a1", "alice")
    shared.put("a3", StoredRun(3), "alice")
    assert [shared.find(run_id, "alice") is not None for run_id in ("a1", "a2", "a3")] == [True, False, True]
    assert (shared.usage("alice"), shared.usage("bob"), shared.usage("nobody")) == ((2, 6), (1, 1), (0, 0))


def test_what_an_owner_released_makes_room_for_the_same_owner(shared: RunStore[StoredRun], clock: Clock) -> None:
    shared.put("a1", StoredRun(6), "ann")
    assert shared.release("a1", "ann")
    shared.put("a2", StoredRun(6), "ann")
    clock.now += TTL_S + 1
    shared.put("a3", StoredRun(6), "ann")
    assert shared.find("a3", "ann") is not None
    assert shared.nbytes == 6


def test_runs_are_dropped_whoever_owns_them(shared: RunStore[StoredRun]) -> None:
    runs = [StoredRun(1), StoredRun(2), StoredRun(3)]
    for owner, run in zip("aba", runs, strict=True):
        shared.put(f"{run.nbytes}", run, owner)
    shared.drop(lambda run: run.nbytes != 2)
    assert shared.usage("a") == (0, 0)
    assert shared.usage("b") == (1, 2)
    assert shared.get("2", "b") is runs[1]
    assert shared.counts.evictions["unloaded"] == 2
