"""The pool that calls are answered on: work goes to the thread that was busy last, and none is lost."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from transparent_llm_server.rpc.concurrency.threads import ReadyThreads

WITHIN_S = 30.0


@pytest.fixture
def threads() -> Iterator[ReadyThreads]:
    pool = ReadyThreads(4, "some")
    yield pool
    pool.shutdown()


def test_work_goes_to_the_thread_that_was_busy_last(threads: ReadyThreads) -> None:
    begun, go_on = threading.Barrier(5), threading.Event()

    def occupy() -> int:
        begun.wait(WITHIN_S)
        go_on.wait(WITHIN_S)
        return threading.get_ident()

    busy = [threads.submit(occupy) for _ in range(4)]
    begun.wait(WITHIN_S)
    last = threads.submit(threading.get_ident)  # waits for the first that is free
    assert not last.done()
    go_on.set()
    assert last.result(WITHIN_S) in {future.result(WITHIN_S) for future in busy}
    found = set()
    for _ in range(50):
        found.add(threads.submit(threading.get_ident).result(WITHIN_S))
    assert len(found) <= 2  # an answer can be heard of before its thread is idle again


def test_what_waits_is_done_in_order(threads: ReadyThreads) -> None:
    holding, done = threading.Event(), list[int]()
    held = [threads.submit(holding.wait, WITHIN_S) for _ in range(3)]
    gate = threading.Event()
    first = threads.submit(gate.wait, WITHIN_S)
    later = [threads.submit(done.append, number) for number in range(100)]
    gate.set()
    for future in [first, *later]:
        future.result(WITHIN_S)
    assert done == list(range(100))
    holding.set()
    assert all(future.result(WITHIN_S) for future in held)


def test_errors_are_those_of_the_future_and_end_no_thread(threads: ReadyThreads) -> None:
    for _ in range(8):
        with pytest.raises(SystemExit):
            threads.submit(exit).result(WITHIN_S)
    assert threads.submit(lambda a, b: a - b, 5, b=3).result(WITHIN_S) == 2


@pytest.mark.parametrize("cancels", [False, True])
def test_the_end_waits_for_what_is_under_way(cancels: bool) -> None:
    pool, go_on = ReadyThreads(1, "some"), threading.Event()
    under_way, waiting = pool.submit(go_on.wait, WITHIN_S), pool.submit(int)
    pool.shutdown(wait=False, cancel_futures=cancels)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(int)
    go_on.set()
    pool.shutdown()
    assert under_way.result(0)
    assert waiting.cancelled() is cancels
    assert cancels or waiting.result(0) == 0
