"""Runs on their way to the model: equal ones once, several in one forward pass, nothing for those who have left."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.servers.engines import SOON, held
from support.servers.servers import tiny
from transparent_llm.errors import (
    BusyError,
    CapacityError,
    InvalidRequestError,
    NotFoundError,
    TooLargeError,
    UnavailableError,
)
from transparent_llm.run_input import RunInput
from transparent_llm_server.models.serving import CompletedRun, PreparedRun, ServedModel, ServedTransformerLens
from transparent_llm_server.models.serving_contract import ServedTransparentLlm
from transparent_llm_server.scheduling import run_queue
from transparent_llm_server.scheduling.engine import Engine
from transparent_llm_server.scheduling.run_queue import RunQueue
from transparent_llm_server.scheduling.run_store import RunStore
from transparent_llm_server.scheduling.sharing import Sharing

Rows = list[list[int]]

LONG: Rows = [[5, 6, 7, 8, 9, 10]]
TWO_ROWS: Rows = [[1, 2, 3, 4], [9, 3]]
SHORT: Rows = [[7]]
BAD: Rows = [[13, 13, 13]]
"""What no watched model runs."""

ALONE = Sharing()
TOGETHER = Sharing(positions=100)


class Held:
    """Something large that a computation makes on its way."""


class Watched(ServedTransformerLens):
    """A tiny model: notes what it executes, can be held at it, fails when it is told to."""

    def __init__(self, alias: str = "tiny", family: str = "gpt2") -> None:
        super().__init__(alias, tiny(family))
        self.passes: list[list[Rows]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.error: BaseException | None = None
        self.most_runs = 100
        """More in one forward pass are out of memory."""

        self.freed: list[weakref.ref[Held]] = []
        self.kept: list[int] = []
        """Before each pass: how much of what failed passes had made was still there."""

    def execute(self, prepared: Sequence[PreparedRun]) -> list[CompletedRun]:
        self.kept.append(sum(made() is not None for made in self.freed))
        rows = [[list(row) for row in run.rows or ()] for run in prepared]
        self.passes.append(rows)
        self.begun.set()
        assert self.go_on.wait(SOON)
        made = Held()
        self.freed.append(weakref.ref(made))
        if self.error is not None:
            raise self.error
        if BAD in rows:
            raise InvalidRequestError("nobody likes 13")
        if len(prepared) > self.most_runs:
            raise MemoryError("no room for so many")
        return super().execute(prepared)


class WatchedContract(ServedTransparentLlm):
    """A model of which nothing is known but the contract; notes what it executes."""

    def __init__(self) -> None:
        super().__init__("contract", tiny().copy())
        self.passes: list[list[Rows]] = []

    def execute(self, prepared: Sequence[PreparedRun]) -> list[CompletedRun]:
        self.passes.append([[list(row) for row in run.run_input.token_ids or ()] for run in prepared])
        return super().execute(prepared)


@dataclass(frozen=True)
class Place:
    """A queue before a model, as a server has them."""

    engine: Engine
    store: RunStore[CompletedRun]
    queue: RunQueue
    model: Watched

    def run_id(self, rows: Rows) -> str:
        return self.model.run_id(self.prepared(rows))

    def prepared(self, rows: Rows) -> PreparedRun:
        return self.model.prepare(RunInput.of_tokens(rows))

    def ask(
        self,
        rows: Rows,
        sharing: Sharing = ALONE,
        model: Watched | WatchedContract | None = None,
        flow: str | None = None,
    ) -> Future[CompletedRun]:
        model = model or self.model
        prepared = model.prepare(RunInput.of_tokens(rows))
        return self.queue.submit(model, prepared, model.run_id(prepared), sharing, flow=flow)


@contextmanager
def opened(queue_length: int = 20, store_bytes: int = 2**40, model: Watched | None = None) -> Iterator[Place]:
    engine = Engine(queue_length, retry_after_s=1.5)
    store: RunStore[CompletedRun] = RunStore(store_bytes, 3600.0, time.monotonic)
    place = Place(engine, store, RunQueue(engine, store), model or Watched())
    try:
        yield place
    finally:
        place.model.go_on.set()
        engine.close()


@pytest.fixture
def place() -> Iterator[Place]:
    with opened() as place:
        yield place


@contextmanager
def model_at_work(place: Place) -> Iterator[None]:
    """The model stops in its next run until the block ends."""
    place.model.begun.clear()
    place.model.go_on.clear()
    try:
        yield
    finally:
        place.model.go_on.set()


def when_idle(place: Place) -> None:
    """All that was asked for so far is done or dropped."""
    place.engine.submit(lambda: None).result(SOON)


def tokens(run: CompletedRun) -> Rows:
    assert run.mask is not None
    return [row[mask].tolist() for row, mask in zip(run.tokens, run.mask, strict=True)]


# One run


def test_a_run_is_given_and_is_then_in_the_store(place: Place) -> None:
    run = place.ask(TWO_ROWS).result(SOON)
    assert tokens(run) == TWO_ROWS
    assert place.store.get(place.run_id(TWO_ROWS)) is run


def test_a_run_is_in_the_store_as_soon_as_somebody_has_it(place: Place) -> None:
    found: list[CompletedRun | None] = []
    with held(place.engine):
        future = place.ask(SHORT)
        future.add_done_callback(lambda _: found.append(place.store.find(place.run_id(SHORT))))
    when_idle(place)
    assert found == [future.result(SOON)]


def test_a_run_that_was_released_is_computed_again_under_another_nonce(place: Place) -> None:
    first = place.ask(SHORT).result(SOON)
    place.store.release(place.run_id(SHORT))
    second = place.ask(SHORT).result(SOON)
    assert place.model.passes == [[SHORT], [SHORT]]
    assert first.nonce != second.nonce


def test_runs_are_computed_in_the_order_of_arrival(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(rows) for rows in (LONG, SHORT, TWO_ROWS)]
    for future in futures:
        future.result(SOON)
    assert place.model.passes == [[LONG], [SHORT], [TWO_ROWS]]


# Equal runs


def test_equal_runs_that_wait_are_computed_once(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(SHORT) for _ in range(3)]
    runs = [future.result(SOON) for future in futures]
    assert runs[0] is runs[1] is runs[2]
    assert place.model.passes == [[SHORT]]


def test_a_run_that_is_computed_serves_those_who_come_meanwhile(place: Place) -> None:
    with model_at_work(place):
        first = place.ask(SHORT)
        assert place.model.begun.wait(SOON)
        late = [place.ask(SHORT) for _ in range(3)]
    assert [future.result(SOON) for future in late] == [first.result(SOON)] * 3
    assert place.model.passes == [[SHORT]]


def test_equal_runs_of_many_threads_are_computed_once(place: Place) -> None:
    barrier, runs = threading.Barrier(8), []

    def call() -> None:
        barrier.wait(SOON)
        future = place.ask(TWO_ROWS)
        asked.release()
        runs.append(future.result(SOON))

    asked = threading.Semaphore(0)
    threads = [threading.Thread(target=call) for _ in range(8)]
    with held(place.engine):
        for thread in threads:
            thread.start()
        for _ in threads:
            assert asked.acquire(timeout=SOON)
    for thread in threads:
        thread.join(SOON)
    assert len(runs) == 8
    assert len({id(run) for run in runs}) == 1
    assert place.model.passes == [[TWO_ROWS]]


def test_text_and_the_token_ids_that_it_stands_for_are_one_run(place: Place) -> None:
    text = place.model.prepare(RunInput.of_sentences(["The river"]))
    ids = [list(row) for row in text.rows or ()]
    with held(place.engine):
        futures = [place.queue.submit(place.model, text, place.model.run_id(text), ALONE), place.ask(ids)]
    assert futures[0].result(SOON) is futures[1].result(SOON)
    assert place.model.passes == [[ids]]


@pytest.mark.parametrize("sharing", [Sharing(), Sharing(positions=0, window_s=SOON)], ids=["default", "no positions"])
def test_different_runs_are_computed_one_by_one_unless_they_may_share(place: Place, sharing: Sharing) -> None:
    with held(place.engine):
        futures = [place.ask(rows, sharing) for rows in (LONG, SHORT)]
    assert [tokens(future.result(SOON)) for future in futures] == [LONG, SHORT]
    assert place.model.passes == [[LONG], [SHORT]]


# Several runs in one forward pass


def test_runs_that_wait_together_share_a_forward_pass(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, TWO_ROWS, SHORT)]
    runs = [future.result(SOON) for future in futures]
    assert place.model.passes == [[LONG, TWO_ROWS, SHORT]]
    assert [tokens(run) for run in runs] == [LONG, TWO_ROWS, SHORT]
    assert [place.store.get(place.run_id(rows)) for rows in (LONG, TWO_ROWS, SHORT)] == runs
    assert len({run.nonce for run in runs}) == 3


def test_equal_runs_take_no_more_room_in_a_shared_pass_than_one(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, SHORT, LONG)]
    assert futures[0].result(SOON) is futures[2].result(SOON)
    assert place.model.passes == [[LONG, SHORT]]


@pytest.mark.parametrize(
    ("positions", "passes"),
    [
        (24, [[LONG, TWO_ROWS, SHORT]]),  # 4 rows of 6
        (23, [[LONG, TWO_ROWS], [SHORT]]),
        (18, [[LONG, TWO_ROWS], [SHORT]]),  # 3 rows of 6
        (17, [[LONG, SHORT], [TWO_ROWS]]),  # what does not fit is left, what comes after it may
        (12, [[LONG, SHORT], [TWO_ROWS]]),
        (11, [[LONG], [TWO_ROWS], [SHORT]]),
        (1, [[LONG], [TWO_ROWS], [SHORT]]),  # one alone may be larger
    ],
    ids=str,
)
def test_padding_counts_as_positions(place: Place, positions: int, passes: list[list[Rows]]) -> None:
    with held(place.engine):
        futures = [place.ask(rows, Sharing(positions)) for rows in (LONG, TWO_ROWS, SHORT)]
    assert [tokens(future.result(SOON)) for future in futures] == [LONG, TWO_ROWS, SHORT]
    assert place.model.passes == passes


def test_models_do_not_share(place: Place) -> None:
    other = Watched("other", family="gemma2")
    with held(place.engine):
        futures = [
            place.ask(LONG, TOGETHER),
            place.ask(TWO_ROWS, TOGETHER, other),
            place.ask(SHORT, TOGETHER),
            place.ask(SHORT, TOGETHER, other),
        ]
    for future in futures:
        future.result(SOON)
    assert place.model.passes == [[LONG, SHORT]]
    assert other.passes == [[TWO_ROWS, SHORT]]


def test_a_model_that_cannot_share_runs_one_by_one(place: Place) -> None:
    contract = WatchedContract()
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER, contract) for rows in (LONG, SHORT)]
    assert [future.result(SOON).tokens.tolist() for future in futures] == [LONG, SHORT]
    assert contract.passes == [[LONG], [SHORT]]


RUNS = st.lists(st.lists(st.lists(st.integers(14, 400), min_size=1, max_size=8), min_size=1, max_size=3), max_size=6)


@given(RUNS, st.integers(0, 40))
@settings(deadline=None, max_examples=30)
def test_any_runs_are_given_to_whom_they_belong_within_the_limit(asked: list[Rows], positions: int) -> None:
    with opened() as place:
        with held(place.engine):
            futures = [place.ask(rows, Sharing(positions)) for rows in asked]
        assert [tokens(future.result(SOON)) for future in futures] == asked
        for group in place.model.passes:
            rows = [row for run in group for row in run]
            assert len(group) == 1 or len(rows) * max(map(len, rows)) <= positions
        computed = [run for group in place.model.passes for run in group]
        assert sorted(computed) == sorted(rows for i, rows in enumerate(asked) if rows not in asked[:i])


# Values of runs that shared a forward pass


READS: list[tuple[str, tuple[int, ...]]] = [
    ("logits", ()),
    ("residual_in", (1,)),
    ("residual_after_attn", (1,)),
    ("residual_out", (1,)),
    ("ffn_out", (0,)),
    ("neuron_activations", (0, 1, 0)),
    ("decomposed_ffn_out", (0, 1, 0)),
    ("attention_matrix", (0, 1, 2)),
    ("attention_output", (0, 1, 0)),
    ("attention_output", (0, 1, 0, 3)),
    ("decomposed_attn", (0, 1)),
]


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral"])
def test_values_of_a_shared_pass_are_those_of_single_ones_within_rounding(family: str) -> None:
    asked = [LONG, TWO_ROWS, SHORT]
    with opened(model=Watched(family=family)) as place:
        alone = [place.ask(rows).result(SOON) for rows in asked]
    with opened(model=Watched(family=family)) as place:
        with held(place.engine):
            futures = [place.ask(rows, TOGETHER) for rows in asked]
        shared = [future.result(SOON) for future in futures]
        assert place.model.passes[-1] == asked
    for single, other in zip(alone, shared, strict=True):
        for name, arguments in READS:
            wanted, got = single.read(name, *arguments).tensor(), other.read(name, *arguments).tensor()
            assert got.shape == wanted.shape, name
            assert torch.allclose(got, wanted, atol=1e-5, rtol=0), name


def test_a_shared_run_has_the_rows_positions_and_bytes_of_one_alone(place: Place) -> None:
    asked = [LONG, TWO_ROWS, SHORT]
    with opened() as other:
        alone = [other.ask(rows).result(SOON) for rows in asked]
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in asked]
    for single, future in zip(alone, futures, strict=True):
        shared = future.result(SOON)
        assert torch.equal(shared.tokens, single.tokens)
        assert shared.mask is not None
        assert single.mask is not None
        assert torch.equal(shared.mask, single.mask)
        assert shared.nbytes == single.nbytes


# Flows in turn


def of_length(length: int, first: int = 1) -> Rows:
    """One row; what it begins with makes it another run."""
    return [[first, *range(2, length + 1)]]


def test_a_flow_with_many_runs_waiting_lets_another_pass(place: Place) -> None:
    with model_at_work(place):
        futures = [place.ask(of_length(4, i), flow="busy") for i in range(10, 18)]
        assert place.model.begun.wait(SOON)
        futures.append(place.ask(SHORT, flow="other"))
    for future in futures:
        future.result(SOON)
    assert place.model.passes.index([SHORT]) == 1


def test_turns_go_by_positions(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(of_length(8, i), flow="long") for i in (10, 11)]
        futures += [place.ask(of_length(2, i), flow="short") for i in range(20, 26)]
    for future in futures:
        future.result(SOON)
    lengths = [len(rows[0]) for (rows,) in place.model.passes]
    assert sorted(lengths[:2]) == [2, 8]
    assert lengths.count(8) == 2
    assert lengths[2:5] == [2, 2, 2]  # until it has had eight positions as well


def test_a_shared_pass_takes_flows_in_turn(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(of_length(4, i), Sharing(positions=12), flow="busy") for i in range(10, 16)]
        futures.append(place.ask(of_length(4, 20), Sharing(positions=12), flow="other"))
    for future in futures:
        future.result(SOON)
    assert [20 in [rows[0][0] for rows in group] for group in place.model.passes] == [True, False, False]


def test_a_run_that_shared_anothers_pass_counts_for_its_flow(place: Place) -> None:
    with held(place.engine):
        ours = place.ask(of_length(5, 10), Sharing(positions=10), flow="ours")
        theirs = [place.ask(of_length(5, i), Sharing(positions=10), flow="theirs") for i in (20, 21)]
        third = [place.ask(of_length(5, i), ALONE, flow="third") for i in (30, 31)]
    for future in (ours, *theirs, *third):
        future.result(SOON)
    assert place.model.passes == [
        [of_length(5, 30)],
        [of_length(5, 20), of_length(5, 10)],
        [of_length(5, 31)],
        [of_length(5, 21)],
    ]


def test_an_equal_run_that_another_flow_asks_for_has_its_turn_too(place: Place) -> None:
    """Nobody waits longer because somebody else with many runs wants the same."""
    with model_at_work(place):
        futures = [place.ask(of_length(4, i), flow="busy") for i in range(10, 18)]
        assert place.model.begun.wait(SOON)
        futures.append(place.ask(of_length(4, 17), flow="other"))
    for future in futures:
        future.result(SOON)
    when_idle(place)
    assert place.model.passes[1] == [of_length(4, 17)]
    assert len(place.model.passes) == 8
    assert place.engine.queued_runs == 0


def test_in_a_full_queue_the_busiest_flow_makes_room() -> None:
    with opened(queue_length=3) as place, model_at_work(place):
        under_way = place.ask(of_length(4, 9), flow="busy")
        assert place.model.begun.wait(SOON)
        waiting = [place.ask(of_length(4, i), flow="busy") for i in (10, 11, 12)]
        other = place.ask(SHORT, flow="other")
        with pytest.raises(BusyError, match="3 calls are already waiting for the model"):
            waiting[2].result(SOON)
        with pytest.raises(BusyError):
            place.ask(of_length(4, 13), flow="busy")
        place.model.go_on.set()
        assert [tokens(run.result(SOON)) for run in (under_way, *waiting[:2], other)] == [
            *(of_length(4, i) for i in (9, 10, 11)),
            SHORT,
        ]


def test_a_run_that_two_flows_wait_for_outlives_the_loss_of_one_turn() -> None:
    with opened(queue_length=3) as place, model_at_work(place):
        place.ask(of_length(4, 9), flow="busy")
        assert place.model.begun.wait(SOON)
        for i in (10, 11):
            place.ask(of_length(4, i), flow="busy")
        first, second = (place.ask(of_length(4, 11), flow=flow) for flow in ("other", "third"))
        assert place.engine.queued_runs == 3  # the third one took the place of the busy one's turn of 11
        place.model.go_on.set()
        assert [tokens(run.result(SOON)) for run in (first, second)] == [of_length(4, 11)] * 2


def test_a_run_whose_only_turn_makes_room_for_another_of_its_own() -> None:
    with opened(queue_length=2) as place, model_at_work(place):
        place.ask(of_length(4, 9), flow="busy")
        assert place.model.begun.wait(SOON)
        _, first = (place.ask(of_length(4, i), flow="busy") for i in (10, 11))
        second = place.ask(of_length(4, 11), flow="other")  # takes the place of the busy one's turn of 11
        assert place.engine.queued_runs == 2
        place.model.go_on.set()
        assert [tokens(run.result(SOON)) for run in (first, second)] == [of_length(4, 11)] * 2


# Waiting for more


@dataclass(frozen=True)
class Seen(PreparedRun):
    """An input that tells when the queue looks whether others fit beside it: from then on its window is open."""

    looked_at: threading.Event = field(default_factory=threading.Event)

    @property
    def n_rows(self) -> int:
        if threading.current_thread().name == "model":
            self.looked_at.set()
        return super().n_rows


WINDOW = Sharing(positions=100, window_s=3 * SOON)
"""Whose end no test waits for."""


class Clock:
    """The queue's time, which stands still until a test moves it on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now

    def end_windows(self, place: Place) -> None:
        with place.queue._changed:
            self.now += WINDOW.window_s
            place.queue._changed.notify_all()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(run_queue, "time", clock)
    return clock


def asked_in_window(place: Place, rows: Rows, sharing: Sharing = WINDOW) -> Future[CompletedRun]:
    """The model waits for more to come with this run. The queue is locked between the look and the wait."""
    prepared = place.prepared(rows)
    seen = Seen(prepared.run_input, prepared.rows, prepared.identity, prepared.digest)
    future = place.queue.submit(place.model, seen, place.model.run_id(seen), sharing)
    assert seen.looked_at.wait(SOON)
    return future


def test_a_run_that_arrives_in_the_window_of_another_shares_its_pass(place: Place, clock: Clock) -> None:
    first = asked_in_window(place, LONG)
    second = place.ask(SHORT, WINDOW)
    clock.end_windows(place)
    assert [tokens(future.result(SOON)) for future in (first, second)] == [LONG, SHORT]
    assert place.model.passes == [[LONG, SHORT]]


def test_nothing_is_computed_for_a_caller_who_leaves_within_the_window(place: Place) -> None:
    first = asked_in_window(place, LONG)
    assert first.cancel()
    when_idle(place)
    assert place.model.passes == []


def test_the_model_waits_no_longer_for_a_caller_who_has_left(place: Place) -> None:
    first = asked_in_window(place, LONG)
    assert first.cancel()
    assert tokens(place.ask(SHORT).result(SOON)) == SHORT


def test_a_model_that_cannot_share_waits_for_nobody(place: Place) -> None:
    future = place.ask(LONG, WINDOW, WatchedContract())
    assert future.result(SOON).tokens.tolist() == LONG


def test_others_are_computed_when_the_one_who_opened_the_window_leaves(place: Place) -> None:
    first = asked_in_window(place, LONG)
    second = place.ask(SHORT, TOGETHER)
    assert first.cancel()
    assert tokens(second.result(SOON)) == SHORT
    assert place.model.passes == [[SHORT]]


def test_one_who_joined_and_left_within_the_window_is_not_computed(place: Place, clock: Clock) -> None:
    first = asked_in_window(place, LONG)
    second = place.ask(SHORT, WINDOW)
    assert second.cancel()
    clock.end_windows(place)
    assert tokens(first.result(SOON)) == LONG
    when_idle(place)
    assert place.model.passes == [[LONG]]


@pytest.mark.parametrize("sharing", [WINDOW, replace(WINDOW, positions=6)], ids=["room for two", "for one"])
def test_a_caller_who_left_and_asks_again_within_the_window_gets_the_run(place: Place, sharing: Sharing) -> None:
    left = asked_in_window(place, LONG, sharing)
    assert left.cancel()
    again = place.ask(LONG, replace(sharing, window_s=0.0))
    assert tokens(again.result(SOON)) == LONG
    assert tokens(place.ask(LONG).result(SOON)) == LONG  # whoever comes later does not wait for ever either


# Callers who leave


def test_what_all_callers_left_before_its_turn_is_never_computed(place: Place) -> None:
    with held(place.engine):
        left = [place.ask(LONG), place.ask(LONG)]
        stayed = place.ask(SHORT)
        assert [future.cancel() for future in left] == [True, True]
    stayed.result(SOON)
    when_idle(place)
    assert place.model.passes == [[SHORT]]
    assert len(place.store) == 1


def test_what_all_callers_left_makes_room_in_the_queue() -> None:
    with opened(queue_length=1) as place:
        with held(place.engine):
            place.ask(LONG).cancel()
            stayed = place.ask(SHORT)
        assert tokens(stayed.result(SOON)) == SHORT


def test_a_caller_who_left_takes_no_part_in_a_shared_pass(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, TWO_ROWS, SHORT)]
        assert futures[1].cancel()
    for future in (futures[0], futures[2]):
        future.result(SOON)
    when_idle(place)
    assert place.model.passes == [[LONG, SHORT]]


@pytest.mark.parametrize("leaving", [0, 1], ids=["first", "second"])
def test_when_one_of_two_callers_leaves_the_other_gets_the_run(place: Place, leaving: int) -> None:
    with held(place.engine):
        futures = [place.ask(SHORT), place.ask(SHORT)]
        assert futures[leaving].cancel()
    assert tokens(futures[1 - leaving].result(SOON)) == SHORT
    assert place.model.passes == [[SHORT]]


def test_a_run_that_was_left_and_is_asked_for_again_is_computed(place: Place) -> None:
    with held(place.engine):
        assert place.ask(SHORT).cancel()
        again = place.ask(SHORT)
    assert tokens(again.result(SOON)) == SHORT
    when_idle(place)
    assert place.model.passes == [[SHORT]]


def test_a_run_that_all_have_left_stops_at_the_next_layer_and_is_not_stored(place: Place) -> None:
    with model_at_work(place):
        left = place.ask(SHORT)
        assert place.model.begun.wait(SOON)
        assert left.cancel()
    when_idle(place)
    assert place.store.find(place.run_id(SHORT)) is None
    assert tokens(place.ask(SHORT).result(SOON)) == SHORT
    assert place.model.passes == [[SHORT], [SHORT]]


def test_a_shared_pass_goes_on_for_those_who_stay(place: Place) -> None:
    with held(place.engine):
        left, stays = place.ask(SHORT, TOGETHER), place.ask(LONG, TOGETHER)
        place.model.go_on.clear()
    assert place.model.begun.wait(SOON)
    assert left.cancel()
    place.model.go_on.set()
    assert tokens(stays.result(SOON)) == LONG
    assert place.model.passes == [[SHORT, LONG]]


def test_one_who_comes_after_all_have_left_a_run_that_is_computed_gets_it(place: Place) -> None:
    with model_at_work(place):
        left = place.ask(SHORT)
        assert place.model.begun.wait(SOON)
        assert left.cancel()
        late = place.ask(SHORT)
    assert tokens(late.result(SOON)) == SHORT
    assert place.model.passes == [[SHORT]]


# Failing runs


def test_an_error_reaches_all_who_wait(place: Place) -> None:
    error = ValueError("words")
    place.model.error = error
    with model_at_work(place):
        first = place.ask(SHORT)
        assert place.model.begun.wait(SOON)
        late = place.ask(SHORT)
    assert first.exception(SOON) is late.exception(SOON) is error
    assert len(place.model.passes) == 1
    assert len(place.store) == 0


def test_running_out_of_memory_is_a_capacity_error_for_all_who_wait(place: Place) -> None:
    place.model.error = MemoryError("no room")
    with held(place.engine):
        futures = [place.ask(SHORT), place.ask(SHORT)]
    for future in futures:
        error = future.exception(SOON)
        assert type(error) is CapacityError
        assert error.metadata == {"device_message": "no room"}


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, StopIteration])
def test_the_queue_survives_whatever_a_run_raises(place: Place, kind: type[BaseException]) -> None:
    place.model.error = kind()
    assert type(place.ask(SHORT).exception(SOON)) is kind
    place.model.error = None
    assert tokens(place.ask(SHORT).result(SOON)) == SHORT


def test_who_comes_after_an_error_has_the_run_computed_anew(place: Place) -> None:
    place.model.error = ValueError("words")
    assert place.ask(SHORT).exception(SOON) is place.model.error
    place.model.error = None
    assert tokens(place.ask(SHORT).result(SOON)) == SHORT
    assert place.model.passes == [[SHORT], [SHORT]]


def test_only_the_bad_run_of_a_group_fails(place: Place) -> None:
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, BAD, SHORT)]
    assert tokens(futures[0].result(SOON)) == LONG
    assert type(futures[1].exception(SOON)) is InvalidRequestError
    assert tokens(futures[2].result(SOON)) == SHORT
    assert place.model.passes == [[LONG, BAD, SHORT], [LONG], [BAD], [SHORT]]
    assert len(place.store) == 2


def test_runs_that_do_not_fit_together_are_computed_one_by_one(place: Place) -> None:
    place.model.most_runs = 1
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, TWO_ROWS, SHORT)]
    assert [tokens(future.result(SOON)) for future in futures] == [LONG, TWO_ROWS, SHORT]


def test_what_a_group_had_made_is_freed_before_its_runs_are_tried_alone(place: Place, no_collector: None) -> None:
    place.model.most_runs = 1
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, SHORT)]
    for future in futures:
        future.result(SOON)
    assert place.model.passes == [[LONG, SHORT], [LONG], [SHORT]]
    assert place.model.kept == [0, 0, 0]


@pytest.mark.parametrize("error", [MemoryError("no room"), ValueError("words")], ids=repr)
def test_a_failed_run_keeps_nothing_of_what_it_had_made(place: Place, no_collector: None, error: BaseException) -> None:
    place.model.error = error
    place.ask(SHORT).exception(SOON)
    place.model.error, error.__traceback__ = None, None
    place.ask(LONG).result(SOON)
    assert place.model.kept == [0, 0]


def test_the_queue_keeps_no_run_that_the_store_has_let_go(place: Place, no_collector: None) -> None:
    with held(place.engine):
        futures = [place.ask(rows, TOGETHER) for rows in (LONG, SHORT)]
    watched = [weakref.ref(future.result(SOON)) for future in futures]
    futures.clear()
    when_idle(place)
    assert [run() is None for run in watched] == [False, False]
    for rows in (LONG, SHORT):
        place.store.release(place.run_id(rows))
    assert [run() for run in watched] == [None, None]


# The store's limit


def test_a_run_that_the_store_can_never_hold_is_its_callers_error() -> None:
    with opened(store_bytes=1) as place:
        assert type(place.ask(SHORT).exception(SOON)) is TooLargeError
        with pytest.raises(NotFoundError):
            place.store.get(place.run_id(SHORT))


def test_only_the_run_that_is_too_large_for_the_store_fails(place: Place) -> None:
    sizes = [place.ask(rows).result(SOON).nbytes for rows in (LONG, SHORT)]
    with opened(store_bytes=sizes[0] - 1) as small:
        with held(small.engine):
            futures = [small.ask(rows, TOGETHER) for rows in (LONG, SHORT)]
        assert type(futures[0].exception(SOON)) is TooLargeError
        assert tokens(futures[1].result(SOON)) == SHORT
        assert small.model.passes == [[LONG, SHORT]]


# The queue's end


def test_a_full_queue_refuses_another_run_and_takes_an_equal_one() -> None:
    with opened(queue_length=1) as place:
        with held(place.engine):
            first = place.ask(LONG)
            with pytest.raises(BusyError) as refused:
                place.ask(SHORT)
            equal = place.ask(LONG)
        assert refused.value.retry_after_s == 1.5
        assert first.result(SOON) is equal.result(SOON)
        when_idle(place)
        assert tokens(place.ask(SHORT).result(SOON)) == SHORT
        assert place.model.passes == [[LONG], [SHORT]]


def test_runs_that_wait_are_refused_when_the_engine_closes() -> None:
    with opened() as place:
        with held(place.engine):
            futures = [place.ask(rows) for rows in (LONG, SHORT, LONG)]
            place.engine.stop()
            for future in futures:
                assert_draining(future)
        assert place.model.passes == []
        assert place.queue._waiting == {}


def test_a_pass_under_way_stops_when_the_engine_closes() -> None:
    with opened() as place:
        place.model.go_on.clear()
        with held(place.engine):
            futures = [place.ask(rows, TOGETHER) for rows in (LONG, SHORT)]
        assert place.model.begun.wait(SOON)
        place.engine.stop()
        place.model.go_on.set()
        for future in futures:
            assert_draining(future)
        assert place.engine.close(SOON)
        assert place.queue._computed == {}


def test_whoever_waits_for_a_pass_that_does_not_stop_is_told() -> None:
    with opened() as place:
        place.model.go_on.clear()
        with held(place.engine):
            futures = [place.ask(rows, TOGETHER) for rows in (LONG, SHORT)]
        assert place.model.begun.wait(SOON)
        assert not place.engine.close(0.01)
        for future in futures:
            assert_draining(future)
        place.model.go_on.set()
        assert place.engine.close(SOON)


def assert_draining(future: Future[CompletedRun]) -> None:
    error = future.exception(SOON)
    assert isinstance(error, UnavailableError)
    assert error.reason == "DRAINING"


def test_a_closed_engine_takes_no_runs() -> None:
    with opened() as place:
        place.engine.close()
        with pytest.raises(UnavailableError) as refused:
            place.ask(SHORT)
        assert refused.value.reason == "DRAINING"


# Anything at once


def test_callers_that_come_and_leave_at_random_get_their_own_runs(place: Place) -> None:
    asked: list[Rows] = [[[number + 20] * (number % 5 + 1)] for number in range(6)]
    barrier, wrong = threading.Barrier(6), []

    def call(worker: int) -> None:
        barrier.wait(SOON)
        for turn in range(20):
            rows = asked[(worker * turn + worker) % len(asked)]
            future = place.ask(rows, Sharing(positions=12))
            if (worker + turn) % 3 == 0 and future.cancel():
                continue
            if tokens(future.result(SOON)) != rows:
                wrong.append(rows)

    threads = [threading.Thread(target=call, args=(worker,)) for worker in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    when_idle(place)
    assert wrong == []


def test_a_run_of_a_model_that_was_unloaded_is_not_computed() -> None:
    @contextmanager
    def gone(model: ServedModel) -> Iterator[None]:
        raise NotFoundError("its model was unloaded", reason="RUN_NOT_FOUND")
        yield

    with opened() as place:
        queue = RunQueue(place.engine, place.store, gone)
        prepared = place.prepared([[1, 2]])
        waiting = queue.submit(place.model, prepared, place.model.run_id(prepared), ALONE)
        with pytest.raises(NotFoundError, match="its model was unloaded"):
            waiting.result(SOON)
        assert place.model.passes == []
        assert len(place.store) == 0
