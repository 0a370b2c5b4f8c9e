"""Calls over a real connection that wait for the model: until it is done, the client leaves, or time is over."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import grpc
import pytest

from support.servers.engines import SOON, held
from transparent_llm.errors import CancelledError, DeadlineError, InvalidRequestError
from transparent_llm_server.rpc.caller import Caller
from transparent_llm_server.rpc.listener import listen_on
from transparent_llm_server.scheduling.engine import Engine

Behavior = Callable[[grpc.ServicerContext], object]


class Answers:
    """What became of calls on the server's side, in order."""

    def __init__(self) -> None:
        self.seen: list[object] = []
        self._counted = threading.Semaphore(0)

    def add(self, outcome: object) -> None:
        self.seen.append(outcome)
        self._counted.release()

    def next(self) -> object:
        assert self._counted.acquire(timeout=SOON)
        return self.seen[-1]


@contextmanager
def answering(behavior: Behavior) -> Iterator[tuple[Any, Answers]]:
    """A client's stub of a server that does this, and what came of it: a result or an error."""
    answers = Answers()

    def answer(request: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            outcome = behavior(context)
        except Exception as error:
            outcome = error
        answers.add(outcome)
        return repr(outcome).encode()

    server = grpc.server(ThreadPoolExecutor(4))
    methods = {"Wait": grpc.unary_unary_rpc_method_handler(answer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Service", methods),))
    port = listen_on(server, "localhost:0")
    server.start()
    try:
        with grpc.insecure_channel(f"localhost:{port}") as channel:
            grpc.channel_ready_future(channel).result(SOON)
            yield channel.unary_unary("/test.Service/Wait"), answers
    finally:
        server.stop(None).wait(SOON)


@pytest.fixture
def engine() -> Iterator[Engine]:
    engine = Engine(queue_length=10, retry_after_s=1.0)
    yield engine
    engine.close()


class LittleTime:
    """A call of which almost no time is left, and which the client does not end by itself."""

    def __init__(self, context: grpc.ServicerContext, seconds: float) -> None:
        self.seconds = seconds
        self.add_callback, self.is_active, self.peer = context.add_callback, context.is_active, context.peer

    def time_remaining(self) -> float:
        return self.seconds


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


# Results


@pytest.mark.parametrize("timeout_s", [None, SOON], ids=["no deadline", "a deadline"])
def test_a_call_waits_for_its_result(engine: Engine, timeout_s: float | None) -> None:
    submitted = threading.Event()

    def behavior(context: grpc.ServicerContext) -> str:
        future = engine.submit(lambda: "done")
        submitted.set()
        return Caller(context).result_of(future)

    with answering(behavior) as (call, _):
        with held(engine):
            answer = call.future(b"", timeout=timeout_s)
            assert submitted.wait(SOON)
        assert answer.result(SOON) == b"'done'"


def test_one_call_waits_for_one_result_after_the_other(engine: Engine) -> None:
    def behavior(context: grpc.ServicerContext) -> list[int]:
        caller = Caller(context)
        return [caller.result_of(engine.submit_read(lambda n=n: n)) for n in range(20)]

    with answering(behavior) as (call, answers):
        call(b"", timeout=SOON)
        assert answers.next() == list(range(20))


@pytest.mark.parametrize(
    "error", [ValueError("words"), InvalidRequestError("words"), TimeoutError("own"), DeadlineError("own")], ids=repr
)
def test_an_error_of_the_work_passes_unchanged(engine: Engine, error: Exception) -> None:
    with answering(lambda context: Caller(context).result_of(engine.submit(raising(error)))) as (call, answers):
        call(b"", timeout=SOON)
        assert answers.next() is error


# Clients who leave


def test_what_a_client_waits_for_is_dropped_when_it_leaves(engine: Engine) -> None:
    ran, submitted = threading.Event(), threading.Event()

    def behavior(context: grpc.ServicerContext) -> object:
        future = engine.submit(ran.set)
        submitted.set()
        return Caller(context).result_of(future)

    with answering(behavior) as (call, answers):
        with held(engine):
            answer = call.future(b"")
            assert submitted.wait(SOON)
            answer.cancel()
            assert type(answers.next()) is CancelledError  # while the model is still at work
    engine.submit(lambda: None).result(SOON)
    assert not ran.is_set()


def test_work_for_a_client_that_has_left_never_begins(engine: Engine) -> None:
    ran, called, gone = threading.Event(), threading.Event(), threading.Event()

    def behavior(context: grpc.ServicerContext) -> object:
        context.add_callback(gone.set)
        called.set()
        assert gone.wait(SOON)
        with held(engine):
            return Caller(context).result_of(engine.submit(ran.set))

    with answering(behavior) as (call, answers):
        answer = call.future(b"")
        assert called.wait(SOON)
        answer.cancel()
        error = answers.next()
    assert type(error) is CancelledError
    assert str(error) == "the call was cancelled before its turn came"
    engine.submit(lambda: None).result(SOON)
    assert not ran.is_set()


def test_a_call_of_many_parts_stops_at_the_part_at_which_the_client_leaves(engine: Engine) -> None:
    made: list[int] = []
    second, gone = threading.Event(), threading.Event()

    def behavior(context: grpc.ServicerContext) -> None:
        context.add_callback(gone.set)
        caller = Caller(context)
        for part in range(2):
            caller.result_of(engine.submit_read(lambda part=part: made.append(part)))
        second.set()
        assert gone.wait(SOON)
        with held(engine):
            caller.result_of(engine.submit_read(lambda: made.append(2)))

    with answering(behavior) as (call, answers):
        answer = call.future(b"")
        assert second.wait(SOON)
        answer.cancel()
        assert type(answers.next()) is CancelledError
    engine.submit(lambda: None).result(SOON)
    assert made == [0, 1]


def test_work_that_has_begun_is_finished_although_the_client_leaves(engine: Engine) -> None:
    begun, gone = threading.Event(), threading.Event()

    def work() -> str:
        begun.set()
        assert gone.wait(SOON)
        return "finished"

    def behavior(context: grpc.ServicerContext) -> str:
        context.add_callback(gone.set)
        return Caller(context).result_of(engine.submit(work))

    with answering(behavior) as (call, answers):
        answer = call.future(b"")
        assert begun.wait(SOON)
        answer.cancel()
        assert answers.next() == "finished"


# Calls whose time is over


def test_a_call_ends_when_its_time_is_over_and_its_work_is_dropped(engine: Engine) -> None:
    ran = threading.Event()

    def behavior(context: grpc.ServicerContext) -> object:
        return Caller(LittleTime(context, 0.05)).result_of(engine.submit(ran.set))  # type: ignore[arg-type]

    with answering(behavior) as (call, answers):
        with held(engine):
            call(b"", timeout=SOON)
            error = answers.next()
    assert type(error) is DeadlineError
    assert error.message == "not finished within the 0.1 s that the call had left"
    engine.submit(lambda: None).result(SOON)
    assert not ran.is_set()


def test_a_result_that_is_there_is_given_although_no_time_is_left(engine: Engine) -> None:
    def behavior(context: grpc.ServicerContext) -> str:
        future = engine.submit(lambda: "done")
        future.exception(SOON)
        return Caller(LittleTime(context, 0.0)).result_of(future)  # type: ignore[arg-type]

    with answering(behavior) as (call, answers):
        call(b"", timeout=SOON)
        assert answers.next() == "done"


def test_a_client_that_leaves_shortly_before_its_time_is_over_leaves_because_of_it(engine: Engine) -> None:
    submitted = threading.Event()

    def behavior(context: grpc.ServicerContext) -> object:
        time = LittleTime(context, 300.0)
        caller = Caller(time)  # type: ignore[arg-type]
        time.seconds = 2.0  # of 300 s, which gRPC may round by 3
        future = engine.submit(lambda: None)
        submitted.set()
        return caller.result_of(future)

    with answering(behavior) as (call, answers), held(engine):
        answer = call.future(b"")
        assert submitted.wait(SOON)
        answer.cancel()
        error = answers.next()
    assert type(error) is DeadlineError
    assert error.message == "not finished within the 2.0 s that the call had left"


def test_a_client_whose_own_time_is_over_leaves_no_work_behind(engine: Engine) -> None:
    ran = threading.Event()
    with answering(lambda context: Caller(context).result_of(engine.submit(ran.set))) as (call, answers):
        with held(engine):
            answer = call.future(b"", timeout=2)
            assert type(answers.next()) in (DeadlineError, CancelledError)  # which of them: test_deadline.py
            answer.exception(SOON)
    engine.submit(lambda: None).result(SOON)
    assert not ran.is_set()


# Memory


class Tensor:
    """Something large."""


@pytest.mark.parametrize("fails", [False, True], ids=["result", "error"])
def test_a_call_that_goes_on_keeps_nothing_of_what_it_waited_for(
    engine: Engine, no_collector: None, fails: bool
) -> None:
    freed = threading.Event()

    def work() -> Tensor:
        made = Tensor()
        weakref.finalize(made, freed.set)
        if fails:
            raise ValueError("words")
        return made

    def behavior(context: grpc.ServicerContext) -> bool:
        caller = Caller(context)
        with suppress(ValueError):
            caller.result_of(engine.submit(work))
        engine.submit(lambda: None).result(SOON)
        return freed.wait(SOON)

    with answering(behavior) as (call, answers):
        call(b"", timeout=SOON)
        assert answers.next() is True
