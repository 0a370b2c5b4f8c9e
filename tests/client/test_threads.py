"""One object, several threads: nobody is ever given the values of another's run."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch

from support.servers.engines import SOON
from support.servers.servers import served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotRunError
from transparent_llm.testing import serve_in_process

Rows = list[list[int]]
ROWS: list[Rows] = [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]]
OVERTAKEN = "another thread has called run on this object since this one did"


@pytest.fixture(params=["remote", "in process", "served in process"])
def llm(request: pytest.FixtureRequest) -> Iterator[TransparentLlm]:
    """Every implementation of this project."""
    if request.param == "in process":
        yield tiny().copy()
    elif request.param == "remote":
        with served() as client:
            yield client
    else:
        with serve_in_process(tiny().copy()) as client:
            yield client


def wanted(rows: Rows) -> torch.Tensor:
    alone = tiny().copy()
    alone.run_tokens(rows)
    return alone.residual_out(1)


def in_thread(work: Callable[..., Any], *arguments: Any) -> Any:
    """In a thread of its own, which then ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work, *arguments).result(SOON)


def test_two_threads_on_one_object_never_get_each_others_values(llm: TransparentLlm) -> None:
    wrong, overtaken, right = [], [], []
    expected = [wanted(rows) for rows in ROWS[:2]]
    barrier = threading.Barrier(2)

    def work(number: int) -> None:
        for _ in range(50):
            barrier.wait(SOON)
            llm.run_tokens(ROWS[number])
            barrier.wait(SOON)
            try:
                got = llm.residual_out(1)
            except NotRunError as error:
                overtaken.append(error)
            else:
                (right if torch.equal(got, expected[number]) else wrong).append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SOON)
        assert not thread.is_alive()
    print(f"\n{len(right)} right, {len(overtaken)} told so, {len(wrong)} wrong of 100")
    assert not wrong
    assert len(right) == len(overtaken) == 50
    assert {str(error)[: len(OVERTAKEN)] for error in overtaken} == {OVERTAKEN}


def test_threads_with_copies_get_their_own(llm: TransparentLlm) -> None:
    def work(rows: Rows) -> torch.Tensor:
        own = llm.copy()
        own.run_tokens(rows)
        return own.residual_out(1)

    with ThreadPoolExecutor(3) as pool:
        for rows, got in zip(ROWS * 3, pool.map(work, ROWS * 3), strict=True):
            assert torch.equal(got, wanted(rows))


def test_an_object_made_here_is_run_and_read_in_another_thread(llm: TransparentLlm) -> None:
    def work() -> torch.Tensor:
        llm.run_tokens(ROWS[0])
        return llm.residual_out(1)

    assert torch.equal(in_thread(work), wanted(ROWS[0]))
    assert torch.equal(llm.residual_out(1), wanted(ROWS[0]))  # nobody else has run it: no doubt whose it is


def test_a_run_is_read_by_threads_that_ran_nothing(llm: TransparentLlm) -> None:
    with ThreadPoolExecutor(4) as pool:
        for rows in ROWS:  # the same readers each time
            llm.run_tokens(rows)
            for got in pool.map(llm.residual_out, [1] * 20):
                assert torch.equal(got, wanted(rows))


@pytest.mark.parametrize(
    "read",
    [
        lambda llm: llm.logits(),
        lambda llm: llm.tokens(),
        lambda llm: llm.mask(),
        lambda llm: llm.batch_size(),
        lambda llm: llm.residual_after_attn(0),
        lambda llm: llm.decomposed_attn(0, 1),
        lambda llm: llm.attention_output_per_head(0, 1, 1, 1),
        lambda llm: llm.decomposed_ffn_out(0, 1, 1),
    ],
)
def test_whoever_was_overtaken_is_told_by_every_read_until_it_runs_again(
    llm: TransparentLlm, read: Callable[[TransparentLlm], object]
) -> None:
    llm.run_tokens(ROWS[0])
    in_thread(llm.run_tokens, ROWS[1])
    for _ in range(2):
        with pytest.raises(NotRunError, match=f"{OVERTAKEN}.*give each thread its own with copy"):
            read(llm)
    llm.run_tokens(ROWS[2])
    read(llm)
    assert torch.equal(llm.residual_out(1), wanted(ROWS[2]))


@pytest.mark.parametrize(
    "use",
    [
        lambda llm: llm.fetch(["logits"]),
        lambda llm: llm.prefetch(["logits"]),
        lambda llm: llm.plan(["logits"]),
        lambda llm: llm.release(),
    ],
)
def test_so_it_is_with_what_only_a_client_has(use: Callable[[RemoteTransparentLlm], object]) -> None:
    with served() as llm:
        llm.run_tokens(ROWS[0])
        in_thread(llm.run_tokens, ROWS[1])
        with pytest.raises(NotRunError, match=OVERTAKEN):
            use(llm)


def test_an_equal_run_of_another_thread_overtakes_nobody() -> None:
    with served() as llm:
        llm.run_tokens(ROWS[0])
        in_thread(llm.run_tokens, ROWS[0])
        assert torch.equal(llm.residual_out(1), wanted(ROWS[0]))


def test_a_run_that_was_lost_and_made_again_is_still_ones_own() -> None:
    with served() as llm:
        llm.run_tokens(ROWS[0])
        llm.release()
        assert torch.equal(in_thread(llm.residual_out, 1), wanted(ROWS[0]))
        assert torch.equal(llm.residual_out(1), wanted(ROWS[0]))


@pytest.mark.parametrize("copied", [copy.copy, lambda llm: llm.copy()], ids=["copy.copy", "copy()"])
def test_a_copy_begins_with_the_run_that_was_made_last_and_has_its_own_from_then_on(
    llm: TransparentLlm, copied: Callable[[TransparentLlm], TransparentLlm]
) -> None:
    llm.run_tokens(ROWS[0])
    in_thread(llm.run_tokens, ROWS[1])
    twin = copied(llm)
    assert torch.equal(twin.residual_out(1), wanted(ROWS[1]))
    twin.run_tokens(ROWS[2])
    in_thread(llm.run_tokens, ROWS[0])
    assert torch.equal(twin.residual_out(1), wanted(ROWS[2]))


def test_a_reading_block_is_for_the_thread_that_opened_it() -> None:
    with served() as llm:
        llm.run_tokens(ROWS[0])
        with llm.reading(pos=slice(-1, None), dtype=torch.bfloat16):
            for read in (llm.logits, llm.tokens, lambda: llm.neuron_output(0, 1)):
                with pytest.raises(InvalidRequestError, match="another thread is inside a reading block"):
                    in_thread(read)
            twin = llm.copy()
            assert llm.logits().shape[1] == 1
            assert llm.logits().dtype == torch.bfloat16
            assert in_thread(twin.logits).shape[1] == 1  # made within the block
        assert in_thread(llm.logits).shape[1] == 3
        assert twin.logits().shape[1] == 1


def test_a_block_that_another_thread_opens_cuts_nothing_of_ones_own_block() -> None:
    with served() as llm:
        llm.run_tokens(ROWS[0])
        opened, go_on = threading.Event(), threading.Event()

        def other() -> int:
            with llm.reading(pos=slice(0, 1)):
                opened.set()
                assert go_on.wait(SOON)
                return llm.logits().shape[1]

        with ThreadPoolExecutor(1) as pool, llm.reading(pos=slice(0, 2)):
            theirs = pool.submit(other)
            assert opened.wait(SOON)
            assert llm.logits().shape[1] == 2
            go_on.set()
            assert theirs.result(SOON) == 1
            assert llm.logits().shape[1] == 2
        assert llm.logits().shape[1] == 3


def test_tasks_of_asyncio_that_take_turns_are_told_apart(llm: TransparentLlm) -> None:
    async def work(rows: Rows) -> torch.Tensor | NotRunError:
        llm.run_tokens(rows)
        await asyncio.sleep(0)  # the other task's turn
        try:
            return llm.residual_out(1)
        except NotRunError as error:
            return error

    async def both() -> list[torch.Tensor | NotRunError]:
        return await asyncio.gather(work(ROWS[0]), work(ROWS[1]))

    first, second = asyncio.run(both())
    assert isinstance(first, NotRunError)
    assert isinstance(second, torch.Tensor)
    assert torch.equal(second, wanted(ROWS[1]))


def test_loops_in_several_threads_walk_on_their_own() -> None:
    """Each reads ahead for itself, from one run, and all get what is right."""
    rows = [list(range(1, 30))]
    local = tiny().copy()
    local.run_tokens(rows)
    with served() as llm:
        llm.run_tokens(rows)

        def walk(head: int) -> bool:
            matrices = all(
                torch.equal(
                    llm.attention_matrix(0, layer, head), local.values().attention_matrix(0, layer, head).tensor()
                )
                for layer in range(2)
                for _ in range(3)
            )
            outputs = all(
                torch.equal(llm.attention_output(0, 1, pos), local.values().attention_output(0, 1, pos).tensor())
                for pos in range(29)
            )
            return matrices and outputs

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(walk, [head % 4 for head in range(64)]))
