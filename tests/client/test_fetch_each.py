"""Values of one stream as they come: in the order asked for, each once, whatever is kept, absent or wrong."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from support.servers.servers import Watcher, served
from transparent_llm.client.arrivals import arrivals
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.errors import IndexOutOfRangeError, NotRunError

ROWS = [[5, 6, 7, 8], [5, 6]]
READS: list[Any] = [
    ("layer_lens", 0, 1),  # whose last parts are absent
    ("residual_out", 0),
    ("residual_in", 1),  # the same value
    "tokens",
    ("decomposed_attn", 0, 1),  # made here
    ("attention_matrix", 0, 1, 2, {"query_pos": slice(-1, None)}),
    ("layer_lens", 0, 0),
]


def tensors(value: Any) -> list[torch.Tensor]:
    return [tensor for tensor in (value if isinstance(value, tuple) else (value,)) if tensor is not None]


def require_same(got: list[Any], wanted: list[Any]) -> None:
    for one, other in zip(got, wanted, strict=True):
        assert type(one) is type(other)
        for a, b in zip(tensors(one), tensors(other), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("kept", [[], [1, 4], range(7)])
def test_each_is_what_fetch_gives(kept: list[int]) -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        wanted = llm.fetch(READS)
        llm.run_tokens(ROWS[1:])
        llm.run_tokens(ROWS)
        llm.prefetch([READS[i] for i in kept])
        require_same(list(llm.fetch_each(READS)), wanted)
        assert list(llm.fetch_each([])) == []


def test_values_belong_to_the_caller() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        for value in llm.fetch_each([("residual_in", 0)] * 2):
            wanted = llm.residual_in(0)
            assert torch.equal(value, wanted)
            value.zero_()


def test_a_run_that_was_lost_is_run_again() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        coming = llm.fetch_each(READS)
        llm.release()
        got = list(coming)
        require_same(got, llm.fetch(READS))


def test_what_is_asked_for_in_a_block_is_cut_when_the_block_is_over() -> None:
    with served() as llm:
        llm.run_tokens(ROWS)
        with llm.reading(pos=slice(1, 3)):
            coming = llm.fetch_each([("residual_in", 0)])
        assert [value.shape[1] for value in coming] == [2]


def test_errors_are_raised_by_the_loop() -> None:
    with served() as llm:
        with pytest.raises(NotRunError):
            llm.fetch_each(READS)
        llm.run_tokens(ROWS)
        with pytest.raises(IndexOutOfRangeError):
            list(llm.fetch_each([("residual_in", 0), ("residual_in", 9)]))


def test_a_value_comes_while_the_next_is_held_back() -> None:
    """The server holds the second of two messages back until the first value is here."""
    watcher = Watcher(hold_after=1)
    with served(watcher) as llm:
        llm.run_tokens(ROWS)
        coming = llm.fetch_each(["tokens", ("residual_in", 0)])
        assert next(coming).tolist() == llm.tokens().tolist()
        assert not watcher.release.is_set()
        watcher.release.set()
        assert next(coming).shape == (2, 4, 64)
        assert list(coming) == []


def test_a_loop_that_fails_or_is_left_cancels_and_gets_what_came_before_an_error() -> None:
    cancelled = threading.Event()

    class Call:
        def cancel(self) -> bool:
            cancelled.set()
            return True

    def fetch(give: Any, interruptible: Interruptible) -> None:
        interruptible.attach(Call())
        give(1)
        raise MemoryError("no room")

    coming = arrivals(fetch)
    assert next(coming) == 1
    with pytest.raises(MemoryError, match="no room"):
        next(coming)
    cancelled.clear()
    coming = arrivals(fetch)
    next(coming)
    coming.close()  # type: ignore[attr-defined]
    assert cancelled.is_set()
