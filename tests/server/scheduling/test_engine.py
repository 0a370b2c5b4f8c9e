"""The model thread: one piece of work at a time, in order, whatever the work does."""

from __future__ import annotations

import ctypes
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
import torch

from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import BusyError, CapacityError, InvalidRequestError, UnavailableError
from transparent_llm_server.models.forward.cancellation import AbandonedError, cancellable, raise_if_cancelled
from transparent_llm_server.scheduling.engine import DEVICE_LOST, THREAD_DIED, THREAD_HUNG, Engine
from transparent_llm_server.scheduling.reads import Kind


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(queue_length=3, retry_after_s=1.5)
    yield engine
    engine.close()


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


def of_layers(order: list[str], begun: threading.Event, go_on: threading.Event) -> Callable[[], None]:
    """A run of three layers, which in its first waits for the test."""

    def run() -> None:
        for layer in range(3):
            raise_if_cancelled()
            order.append(f"layer {layer}")
            begun.set()
            assert go_on.wait(SOON)

    return run


def test_a_read_that_may_interrupt_waits_for_no_more_than_a_layer(engine: Engine) -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    run = engine.submit(of_layers(order, begun, go_on), "other")
    assert begun.wait(SOON)
    reads = [
        engine.submit_read(partial(order.append, "patient"), "one"),
        engine.submit_read(partial(order.append, "interrupting"), "one", kind=Kind.INTERRUPTING),
    ]
    go_on.set()
    for each in (run, *reads):
        each.result(SOON)
    assert order == ["layer 0", "interrupting", "layer 1", "layer 2", "patient"]


def test_so_many_may_interrupt_one_layer_and_flows_take_turns(engine: Engine) -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    run = engine.submit(of_layers(order, begun, go_on))
    assert begun.wait(SOON)
    reads = [engine.submit_read(partial(order.append, "many"), "many", kind=Kind.INTERRUPTING) for _ in range(10)]
    reads.append(engine.submit_read(partial(order.append, "few"), "few", kind=Kind.INTERRUPTING))
    go_on.set()
    for each in (run, *reads):
        each.result(SOON)
    assert order == ["layer 0", "many", "few", *["many"] * 6, "layer 1", *["many"] * 3, "layer 2"]


def test_what_interrupts_is_no_part_of_the_run(engine: Engine) -> None:
    """Its error is its own, it goes on when nobody wants the run any more, and it is not interrupted itself."""
    begun, go_on, order = threading.Event(), threading.Event(), list[str]()

    def abandoned() -> None:
        with cancellable(lambda: len(order) < 2):
            of_layers([], begun, go_on)()

    def read() -> None:
        order.append("read")
        raise_if_cancelled()
        order.append("end of read")

    run = engine.submit(abandoned)
    assert begun.wait(SOON)
    failing = engine.submit_read(raising(InvalidRequestError("words")), kind=Kind.INTERRUPTING)
    reads = [engine.submit_read(read, kind=Kind.INTERRUPTING) for _ in range(2)]
    go_on.set()
    assert isinstance(failing.exception(SOON), InvalidRequestError)
    assert [each.result(SOON) for each in reads] == [None, None]
    assert isinstance(run.exception(SOON), AbandonedError)
    assert order == ["read", "end of read"] * 2


def test_between_runs_reads_of_both_kinds_alternate(engine: Engine) -> None:
    order: list[str] = []
    with held(engine):
        reads = [engine.submit_read(partial(order.append, "patient")) for _ in range(3)]
        reads += [engine.submit_read(partial(order.append, "interrupting"), kind=Kind.INTERRUPTING) for _ in range(3)]
    for each in reads:
        each.result(SOON)
    assert order == ["interrupting", "patient"] * 3


def test_a_long_read_lets_short_ones_in_and_no_other_long_one(engine: Engine) -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    jobs = [engine.submit_read(of_layers(order, begun, go_on), "long", Kind.LONG)]
    assert begun.wait(SOON)
    jobs.append(engine.submit(partial(order.append, "run"), "one"))
    for name, kind in (("long", Kind.LONG), ("patient", Kind.PATIENT), ("interrupting", Kind.INTERRUPTING)):
        jobs.append(engine.submit_read(partial(order.append, name), "other", kind))
    go_on.set()
    for each in jobs:
        each.result(SOON)
    assert order == ["layer 0", "interrupting", "patient", "layer 1", "layer 2", "long", "run"]


def test_a_short_read_lets_nobody_in(engine: Engine) -> None:
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()
    jobs = [engine.submit_read(of_layers(order, begun, go_on), "one")]
    assert begun.wait(SOON)
    jobs.append(engine.submit_read(partial(order.append, "interrupting"), "other", Kind.INTERRUPTING))
    go_on.set()
    for each in jobs:
        each.result(SOON)
    assert order == ["layer 0", "layer 1", "layer 2", "interrupting"]


def test_an_engine_that_closes_refuses_what_would_interrupt(engine: Engine) -> None:
    with held(engine):
        read = engine.submit_read(lambda: None, kind=Kind.INTERRUPTING)
        engine.stop()
        assert isinstance(read.exception(SOON), UnavailableError)


def test_a_vector_is_unembedded_while_another_one_s_run_is_computed() -> None:
    """The pass goes on to its second layer only when the other client has its answer."""
    with (
        running() as server,
        RemoteTransparentLlm(server.address) as one,
        RemoteTransparentLlm(server.address) as other,
    ):
        vector = torch.linspace(-1, 1, one.model_info().d_model)
        wanted = one.unembed(vector, True)
        engine, asks, goes_on = server._engine, list[int](), server._engine._goes_on
        begun, answered = threading.Event(), threading.Event()

        def at_a_layer() -> bool:
            asks.append(len(asks))
            if len(asks) == 1:
                begun.set()
                wait_until(lambda: bool(engine._reads))
            if len(asks) == 2:
                return answered.wait(SOON) and goes_on()
            return goes_on()

        running_other = threading.Thread(target=lambda: other.run_tokens([[1, 2, 3]]))
        engine._goes_on = at_a_layer  # type: ignore[method-assign]
        running_other.start()
        assert begun.wait(SOON)
        assert torch.equal(one.copy().unembed(vector, True), wanted)
        answered.set()
        running_other.join(SOON)
        assert other.batch_size() == 1


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


def test_nothing_is_done_while_it_is_paused(engine: Engine) -> None:
    with held(engine):
        pausing = threading.Thread(target=lambda: pause(engine, paused, go_on))
        paused, go_on = threading.Event(), threading.Event()
        pausing.start()
        assert not paused.wait(0.05)  # what is under way ends first
    assert paused.wait(SOON)
    work = engine.submit(lambda: "done")
    with pytest.raises(TimeoutError):
        work.result(0.05)
    go_on.set()
    assert work.result(SOON) == "done"
    pausing.join(SOON)


def pause(engine: Engine, paused: threading.Event, go_on: threading.Event) -> None:
    with engine.paused():
        paused.set()
        assert go_on.wait(SOON)


def test_a_pause_is_no_work_of_the_model(engine: Engine) -> None:
    with engine.paused():
        wait_until(lambda: engine.busy_s == 0)
        assert engine.submit_read(lambda: None) is not None
        assert engine.busy_s == 0


def test_an_engine_that_is_closed_cannot_be_paused(engine: Engine) -> None:
    engine.close()
    with pytest.raises(UnavailableError), engine.paused():
        pass


def test_a_run_s_place_counts_those_before_it_and_the_one_that_is_computed(engine: Engine) -> None:
    with held(engine):
        waiting = [engine.submit(lambda: None, "one") for _ in range(2)]
        assert [engine.runs_before(each) for each in waiting] == [1, 2]
        waiting[0].cancel()
        assert engine.runs_before(waiting[1]) == 1
    waiting[1].result(SOON)
    assert engine.runs_before(waiting[1]) == 0
    with engine.paused():
        assert engine.runs_before(engine.submit(lambda: None)) == 0  # it is next


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


def test_a_long_message_of_the_device_is_shortened(engine: Engine) -> None:
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
    assert refused.value.message == "3 calls are already waiting for the model; try again in 1.5 s"
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


def test_work_that_was_cancelled_makes_room(engine: Engine) -> None:
    with held(engine):
        waiting = [engine.submit(lambda: "waited") for _ in range(3)]
        assert waiting[1].cancel()
        late = engine.submit(lambda: "late")
        with pytest.raises(BusyError):
            engine.submit(lambda: None)
    assert late.result(SOON) == "late"
    assert waiting[2].result(SOON) == "waited"


# Reads


class Order:
    """Notes which work was done when."""

    def __init__(self, engine: Engine) -> None:
        self.done: list[str] = []
        self.futures: list[Future[None]] = []
        self._engine = engine

    def run(self, *names: str) -> None:
        self.futures += [self._engine.submit(partial(self.done.append, name)) for name in names]

    def read(self, *names: str) -> None:
        self.futures += [self._engine.submit_read(partial(self.done.append, name)) for name in names]

    def when_all_is_done(self) -> list[str]:
        for future in self.futures:
            future.result(SOON)
        return self.done


def test_a_read_gives_its_result_and_its_error(engine: Engine) -> None:
    error = InvalidRequestError("words")
    assert engine.submit_read(lambda: 6 * 7).result(SOON) == 42
    assert engine.submit_read(raising(error)).exception(SOON) is error
    assert type(engine.submit_read(raising(MemoryError())).exception(SOON)) is CapacityError


def test_reads_and_runs_are_done_by_the_same_thread(engine: Engine) -> None:
    assert engine.submit_read(threading.get_ident).result(SOON) == engine.submit(threading.get_ident).result(SOON)


def test_reads_overtake_the_runs_that_wait_in_order(engine: Engine) -> None:
    order = Order(engine)
    with held(engine):
        order.run("run 1")
        order.read("read 1")
        order.run("run 2")
        order.read("read 2", "read 3")
    assert order.when_all_is_done() == ["read 1", "read 2", "read 3", "run 1", "run 2"]


def test_after_eight_reads_in_a_row_a_waiting_run_has_its_turn(engine: Engine) -> None:
    order = Order(engine)
    reads = [f"read {number}" for number in range(20)]
    with held(engine):
        order.read(*reads)
        order.run("run 1", "run 2")
    assert order.when_all_is_done() == [*reads[:8], "run 1", *reads[8:16], "run 2", *reads[16:]]


def test_a_run_that_reads_never_let_alone_has_its_turn(engine: Engine) -> None:
    ran = threading.Event()

    def read_again() -> None:
        if not ran.is_set():
            engine.submit_read(read_again)
            engine.submit_read(read_again)

    engine.submit_read(read_again)
    assert engine.submit(ran.set).exception(SOON) is None
    assert ran.is_set()


def test_as_many_reads_wait_as_there_are_calls(engine: Engine) -> None:
    order = Order(engine)
    with held(engine):
        order.run("run", "run", "run")
        order.read(*["read"] * 100)
        with pytest.raises(BusyError):
            order.run("one too many")
    assert sorted(order.when_all_is_done()) == ["read"] * 100 + ["run"] * 3


def test_reads_that_wait_take_no_room_from_runs(engine: Engine) -> None:
    order = Order(engine)
    with held(engine):
        order.read(*["read"] * 10)
        order.run("run", "run", "run")
    assert len(order.when_all_is_done()) == 13


def test_a_read_that_is_cancelled_before_it_begins_never_runs(engine: Engine) -> None:
    order, ran = Order(engine), threading.Event()
    with held(engine):
        dropped = engine.submit_read(ran.set)
        order.read("read")
        order.run("run")
        assert dropped.cancel()
    assert order.when_all_is_done() == ["read", "run"]
    assert not ran.is_set()


# On the caller's own thread


def test_a_little_work_is_done_on_the_callers_thread_while_the_model_is_at_work(engine: Engine) -> None:
    with held(engine):
        assert engine.run_inline(threading.get_ident) == threading.get_ident()


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError("no room"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=repr,
)
def test_running_out_of_memory_on_the_callers_thread_is_a_capacity_error(engine: Engine, error: Exception) -> None:
    with pytest.raises(CapacityError) as refused:
        engine.run_inline(raising(error))
    assert refused.value.reason == "OUT_OF_MEMORY"
    assert refused.value.retry_after_s == 1.5
    assert refused.value.metadata == {"device_message": str(error)}
    assert refused.value.__cause__ is error


@pytest.mark.parametrize(
    "error",
    [ValueError("words"), RuntimeError("shapes do not match"), InvalidRequestError("words"), KeyboardInterrupt()],
    ids=repr,
)
def test_any_other_error_on_the_callers_thread_passes_unchanged(engine: Engine, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        engine.run_inline(raising(error))
    assert raised.value is error
    assert error.__cause__ is None


# What a caller is told


@pytest.mark.parametrize(
    "error",
    [ValueError("out of memory"), RuntimeError("words"), BusyError("words"), CapacityError("words"), SystemExit(1)],
    ids=repr,
)
def test_an_error_that_is_not_the_devices_is_told_as_it_is(engine: Engine, error: BaseException) -> None:
    assert engine.translate(error) is error


@pytest.mark.parametrize("error", [MemoryError("no room"), RuntimeError("HIP out of memory. Tried to")], ids=repr)
def test_a_device_without_memory_is_told_with_a_time_to_come_back(engine: Engine, error: BaseException) -> None:
    told = engine.translate(error)
    assert type(told) is CapacityError
    assert told.retry_after_s == 1.5
    assert told.__traceback__ is told.__cause__ is None


# Closing


def test_closing_refuses_what_is_queued_and_waits_for_what_is_under_way() -> None:
    engine = Engine(queue_length=5, retry_after_s=1.0)
    order = Order(engine)
    with held(engine) as under_way:
        order.run("run 1", "run 2")
        order.read("read 1", "read 2")
        closing = threading.Thread(target=engine.close)
        closing.start()
        for future in order.futures:  # while the model thread is still at work
            assert_draining(future)
        assert closing.is_alive()
    closing.join(SOON)
    assert not closing.is_alive()
    assert under_way.result(0)
    assert order.done == []


def test_what_was_cancelled_before_it_closed_stays_cancelled() -> None:
    engine = Engine(queue_length=5, retry_after_s=1.0)
    with held(engine):
        dropped = engine.submit(lambda: None)
        assert dropped.cancel()
        engine.stop()
    engine.close()
    assert dropped.cancelled()


def test_work_under_way_stops_at_the_next_place_where_it_can() -> None:
    engine, begun = Engine(queue_length=5, retry_after_s=1.0), threading.Event()

    def endless() -> None:
        with cancellable(lambda: True):  # whoever it is for waits still
            while True:
                begun.set()
                raise_if_cancelled()

    future = engine.submit(endless)
    assert begun.wait(SOON)
    assert engine.close(SOON)
    assert_draining(future)


def test_work_that_does_not_stop_is_given_up() -> None:
    failures: list[int] = []
    engine = Engine(queue_length=5, retry_after_s=1.0, on_failure=failures.append)
    with held(engine) as stuck:
        assert not engine.close(0.01)
        assert_draining(stuck)
    assert engine.close(SOON)  # it came to its end, and nobody was left to be told
    assert failures == []


def test_work_that_fails_after_it_was_given_up_is_no_failure_of_the_engine() -> None:
    failures: list[int] = []
    engine = Engine(queue_length=5, retry_after_s=1.0, on_failure=failures.append)
    begun, go_on = threading.Event(), threading.Event()

    def fail() -> None:
        begun.set()
        go_on.wait(SOON)
        raise ValueError

    future = engine.submit(fail)
    assert begun.wait(SOON)
    assert not engine.close(0.01)
    go_on.set()
    assert engine.close(SOON)
    assert_draining(future)
    assert failures == []


def test_a_closed_engine_refuses_work_on_the_callers_thread() -> None:
    engine, ran = Engine(queue_length=5, retry_after_s=1.0), threading.Event()
    engine.close()
    with pytest.raises(UnavailableError) as refused:
        engine.run_inline(ran.set)
    assert refused.value.reason == "DRAINING"
    assert not ran.is_set()


def assert_draining(future: Future[Any]) -> None:
    error = future.exception(SOON)
    assert isinstance(error, UnavailableError)
    assert error.reason == "DRAINING"


@pytest.mark.parametrize("submit", [Engine.submit, Engine.submit_read], ids=["run", "read"])
def test_a_closed_engine_refuses_work(submit: Callable[[Engine, Callable[[], None]], Future[None]]) -> None:
    engine, ran = Engine(queue_length=5, retry_after_s=1.0), threading.Event()
    engine.close()
    with pytest.raises(UnavailableError) as refused:
        submit(engine, ran.set)
    assert refused.value.reason == "DRAINING"
    assert not ran.is_set()


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
    assert freed.wait(SOON)


# The end of a device, or of the thread


LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: device-side assert triggered"),
]


def failing() -> tuple[Engine, list[int], threading.Event]:
    """An engine, what it said of its end, and when."""
    codes, told = [], threading.Event()

    def tell(code: int) -> None:
        codes.append(code)
        told.set()

    return Engine(3, 1.5, tell), codes, told


@pytest.mark.parametrize("error", LOST, ids=["its class", "its words"])
def test_a_lost_device_is_told_as_the_end(error: RuntimeError) -> None:
    engine, codes, _ = failing()
    with pytest.raises(UnavailableError, match="the server can no longer compute and is shutting down"):
        engine.submit(raising(error)).result(SOON)
    assert codes == [DEVICE_LOST]
    engine.close()


@pytest.mark.parametrize("error", [ValueError("CUDA error"), RuntimeError("CUDA out of memory. Tried to allocate")])
def test_no_other_error_is_the_end(error: Exception) -> None:
    engine, codes, _ = failing()
    with pytest.raises((ValueError, CapacityError)):
        engine.submit(raising(error)).result(SOON)
    assert engine.submit(lambda: 1).result(SOON) == 1
    assert codes == []
    engine.close()


def test_a_thread_that_dies_refuses_all_who_wait_or_come() -> None:
    engine, codes, told = failing()
    begun, go_on, ident = threading.Event(), threading.Event(), [0]

    def dying() -> None:
        ident[0] = threading.get_ident()
        begun.set()
        assert go_on.wait(SOON)

    first = engine.submit(dying)
    assert begun.wait(SOON)
    waiting = [engine.submit(lambda: 1), engine.submit_read(lambda: 2)]
    first.add_done_callback(lambda _: kill(ident[0]))  # on the model thread, between two pieces of work
    go_on.set()
    assert told.wait(SOON)
    assert codes == [THREAD_DIED]
    for future in waiting:
        with pytest.raises(UnavailableError, match="the server can no longer compute"):
            future.result(SOON)
    with pytest.raises(UnavailableError):
        engine.submit(lambda: 3)
    engine.close()


def kill(ident: int) -> None:
    """End a thread from outside, at its next bytecode."""
    set_error = ctypes.pythonapi.PyThreadState_SetAsyncExc
    assert set_error(ctypes.c_ulong(ident), ctypes.py_object(SystemExit)) == 1


# Work that does not end


def test_it_tells_how_long_it_has_been_at_its_work() -> None:
    engine = Engine(4, 1.0)
    assert engine.busy_s == 0
    with held(engine):
        wait_until(lambda: engine.busy_s > 0.05)
    wait_until(lambda: engine.busy_s == 0)
    engine.close()


def test_work_that_does_not_end_is_the_servers_end() -> None:
    with running(hang_s=0.2) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        assert llm.is_serving()
        with held(server._engine):
            assert server.wait_for_end() == THREAD_HUNG
            assert not llm.is_serving()


def test_work_that_ends_in_time_is_no_reason_to_end() -> None:
    with running(hang_s=SOON, sweep_s=0.01) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        for row in range(20):
            llm.run_tokens([[1, 2, 3 + row]])
        assert llm.is_serving()
