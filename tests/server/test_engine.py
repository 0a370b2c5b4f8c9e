"""The model thread: one piece of work at a time, in order, whatever the work does."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial

import pytest
import torch

from transparent_llm.errors import BusyError, CapacityError, InvalidRequestError
from transparent_llm_server.engine import Engine

SOON = 30.0
"""Seconds that nothing here needs; only a test that fails waits for so long."""


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(queue_length=3, retry_after_s=1.5)
    yield engine
    engine.close()


@contextmanager
def held(engine: Engine) -> Iterator[Future[bool]]:
    """The model thread is at work until the block ends."""
    begun, go_on = threading.Event(), threading.Event()

    def work() -> bool:
        begun.set()
        return go_on.wait(SOON)

    future = engine.submit(work)
    assert begun.wait(SOON)
    try:
        yield future
    finally:
        go_on.set()


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


# Order and results


def test_work_gives_its_result(engine: Engine) -> None:
    assert engine.submit(lambda: 6 * 7).result(SOON) == 42


def test_work_is_done_in_the_order_of_arrival(engine: Engine) -> None:
    done: list[int] = []
    with held(engine):
        futures = [engine.submit(partial(done.append, number)) for number in range(3)]
        assert done == []
    for future in futures:
        future.result(SOON)
    assert done == [0, 1, 2]


def test_all_work_is_done_by_one_thread_of_its_own(engine: Engine) -> None:
    threads = {engine.submit(threading.get_ident).result(SOON) for _ in range(5)}
    assert len(threads) == 1
    assert threading.get_ident() not in threads


def test_callers_from_many_threads_never_meet_in_the_model() -> None:
    n_callers = 8
    engine, barrier, inside, most = Engine(n_callers, 1.0), threading.Barrier(n_callers), [0], [0]
    results: list[int] = []

    def work() -> int:
        inside[0] += 1
        most[0] = max(most[0], inside[0])
        inside[0] -= 1
        return 1

    def call() -> None:
        barrier.wait(SOON)
        results.append(engine.submit(work).result(SOON))

    callers = [threading.Thread(target=call) for _ in range(n_callers)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(SOON)
    engine.close()
    assert results == [1] * n_callers
    assert most == [1]


# Failing work


def test_an_exception_of_the_work_reaches_the_caller(engine: Engine) -> None:
    error = InvalidRequestError("words", reason="INVALID_SHAPE")
    assert engine.submit(raising(error)).exception(SOON) is error


@pytest.mark.parametrize(
    "kind", [ValueError, RuntimeError, StopIteration, SystemExit, KeyboardInterrupt, GeneratorExit]
)
def test_the_thread_survives_whatever_the_work_raises(engine: Engine, kind: type[BaseException]) -> None:
    assert type(engine.submit(raising(kind())).exception(SOON)) is kind
    assert engine.submit(lambda: "alive").result(SOON) == "alive"


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("no room")], ids=repr)
def test_running_out_of_memory_is_a_capacity_error(engine: Engine, error: BaseException) -> None:
    got = engine.submit(raising(error)).exception(SOON)
    assert type(got) is CapacityError
    assert got.message == (
        "the device has no memory left for this call; run fewer or shorter sentences, or release runs"
    )
    assert got.reason == "OUT_OF_MEMORY"
    assert got.metadata == {"device_message": str(error)}
    assert engine.submit(lambda: "alive").result(SOON) == "alive"


def test_a_long_message_of_the_device_is_cut(engine: Engine) -> None:
    got = engine.submit(raising(MemoryError("x" * 5000))).exception(SOON)
    assert isinstance(got, CapacityError)
    assert got.metadata == {"device_message": "x" * 200}


def test_running_out_of_memory_on_the_cpu_is_a_capacity_error(engine: Engine) -> None:
    got = engine.submit(lambda: torch.empty(2**60, dtype=torch.uint8, device="cpu")).exception(SOON)
    assert type(got) is CapacityError


# The queue's end


def test_a_full_queue_refuses_with_a_time_to_come_back(engine: Engine) -> None:
    with held(engine):
        waiting = [engine.submit(lambda: None) for _ in range(3)]
        with pytest.raises(BusyError) as refused:
            engine.submit(lambda: None)
    assert type(refused.value) is BusyError
    assert refused.value.message == "3 calls wait for the model already; try again in 1.5 s"
    assert refused.value.reason == "BUSY"
    assert refused.value.metadata == {"queue_length": "3"}
    assert refused.value.retry_after_s == 1.5
    assert [future.result(SOON) for future in waiting] == [None] * 3


def test_a_queue_that_was_full_takes_work_again(engine: Engine) -> None:
    with held(engine):
        last = [engine.submit(lambda: None) for _ in range(3)][-1]
    last.result(SOON)
    assert engine.submit(lambda: "room").result(SOON) == "room"


def test_refused_work_never_runs(engine: Engine) -> None:
    ran = threading.Event()
    with held(engine):
        last = [engine.submit(lambda: None) for _ in range(3)][-1]
        with pytest.raises(BusyError):
            engine.submit(ran.set)
    last.result(SOON)
    assert not ran.is_set()


# Cancelling


def test_work_that_is_cancelled_before_it_begins_never_runs(engine: Engine) -> None:
    ran = threading.Event()
    with held(engine):
        dropped = engine.submit(ran.set)
        after = engine.submit(lambda: "after")
        assert dropped.cancel()
    assert after.result(SOON) == "after"
    assert not ran.is_set()


def test_work_that_has_begun_cannot_be_cancelled(engine: Engine) -> None:
    with held(engine) as running:
        assert not running.cancel()
    assert running.result(SOON)


# Closing


def test_closing_finishes_what_is_queued() -> None:
    engine = Engine(queue_length=5, retry_after_s=1.0)
    with held(engine):
        queued = [engine.submit(lambda: "done") for _ in range(5)]
        closing = threading.Thread(target=engine.close)
        closing.start()
    closing.join(SOON)
    assert not closing.is_alive()
    assert [future.done() and future.result() for future in queued] == ["done"] * 5


def test_closing_ends_the_thread() -> None:
    engine = Engine(queue_length=1, retry_after_s=1.0)
    thread = engine.submit(threading.current_thread).result(SOON)
    engine.close()
    assert not thread.is_alive()


def test_closing_twice_is_no_error() -> None:
    engine = Engine(queue_length=1, retry_after_s=1.0)
    engine.close()
    engine.close()


# Memory


class Tensor:
    """Something large."""


@pytest.fixture
def no_collector() -> Iterator[None]:
    """What is freed is freed because nobody holds it: device memory does not wake the collector."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def test_an_idle_engine_does_not_keep_the_last_result(engine: Engine, no_collector: None) -> None:
    freed = threading.Event()
    future = engine.submit(Tensor)
    weakref.finalize(future.result(SOON), freed.set)
    del future
    assert freed.wait(SOON)


def test_a_cancelled_call_does_not_keep_its_work(engine: Engine, no_collector: None) -> None:
    freed, value = threading.Event(), Tensor()
    weakref.finalize(value, freed.set)
    with held(engine):
        engine.submit(partial(repr, value)).cancel()
        del value
    assert freed.wait(SOON)


@pytest.mark.parametrize("kind", [MemoryError, torch.OutOfMemoryError, ValueError])
def test_a_failed_call_does_not_keep_what_it_had_made(
    engine: Engine, no_collector: None, kind: type[Exception]
) -> None:
    freed = threading.Event()

    def work() -> None:
        made = Tensor()
        weakref.finalize(made, freed.set)
        raise kind("words")

    assert engine.submit(work).exception(SOON) is not None
    assert freed.wait(3.0)
