"""Walks: noticed at the second step, gone on with to the end of the axes, and never much is read in vain."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transparent_llm.client.read_ahead import AccessPattern, Indices

ENOUGH = 2**62
SIZES = (2, 12, 16)
"""Of axes batch, layer and head."""


def walked(calls: Iterable[Indices]) -> AccessPattern:
    walk = AccessPattern()
    for indices in calls:
        walk.step(indices)
    return walk


def ahead(calls: Iterable[Indices], sizes: Indices = SIZES, max_entries: int = ENOUGH) -> list[Indices]:
    return walked(calls).ahead(sizes, 10, 10 * max_entries)


@dataclass
class Traffic:
    """What a reader that keeps everything sends for some calls."""

    asked: int
    calls: int
    in_vain: int


def traffic(reads: Sequence[Indices], sizes: Indices, max_entries: int = ENOUGH) -> Traffic:
    """What is missing is fetched with what comes next; and at the last of what was fetched, what comes next."""
    walk, sent, calls = AccessPattern(), set[Indices](), 0
    for indices in reads:
        walk.step(indices)
        if indices not in sent:
            calls += 1
            sent |= {indices, *walk.ahead(sizes, 1, max_entries)}
        elif (following := walk.next(sizes)) is not None and following not in sent:
            found = set(walk.ahead(sizes, 1, max_entries)) - sent
            calls += bool(found)
            sent |= found
    return Traffic(asked=len(set(reads)), calls=calls, in_vain=len(sent - set(reads)))


def rows(layers: Iterable[int], heads: Sequence[int]) -> list[Indices]:
    """Reads of an outer loop over layers and an inner one over heads."""
    return [(0, layer, head) for layer, head in product(layers, heads)]


# Noticing


def test_one_call_is_no_walk() -> None:
    assert not walked([]).noticed
    assert not walked([(0, 0, 0)]).noticed
    assert ahead([]) == []
    assert ahead([(0, 0, 0)]) == []


@pytest.mark.parametrize(
    ("second", "expected"),
    [
        ((0, 4, 6), [(0, 4, 7), (0, 4, 8)]),
        ((0, 4, 4), [(0, 4, 3), (0, 4, 2)]),
        ((0, 5, 5), [(0, 6, 5), (0, 7, 5)]),
        ((0, 3, 5), [(0, 2, 5), (0, 1, 5)]),
        ((0, 4, 8), [(0, 4, 11), (0, 4, 14)]),
        ((0, 4, 15), []),
        ((1, 4, 5), []),
        ((0, 4, 0), []),
    ],
    ids=[
        "heads",
        "heads backwards",
        "layers",
        "layers backwards",
        "every third",
        "too far",
        "last row",
        "too far back",
    ],
)
def test_a_walk_is_noticed_at_the_second_step(second: Indices, expected: list[Indices]) -> None:
    calls = [(0, 4, 5), second]
    assert walked(calls).noticed
    assert ahead(calls) == expected


def test_the_same_call_again_is_no_step() -> None:
    assert not walked([(0, 4, 5)] * 3).noticed
    assert ahead([(0, 4, 5), (0, 4, 5), (0, 4, 6), (0, 4, 6)]) == [(0, 4, 7), (0, 4, 8)]


def test_a_call_without_indices_is_no_walk() -> None:
    walk = walked([(), ()])
    assert not walk.noticed
    assert walk.ahead((), 10, 1000) == []


def test_each_step_looks_further() -> None:
    heads = [(0, 0, head) for head in range(16)]
    assert [len(ahead(heads[:steps])) for steps in range(1, 17)] == [0, 2, 3, 4, 5, 6, 7, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_bytes_are_a_limit_too() -> None:
    walk = walked((0, 0, head) for head in range(5))
    assert len(walk.ahead(SIZES, 10, 39)) == 3
    assert len(walk.ahead(SIZES, 10, 1000)) == 5
    assert walk.ahead(SIZES, 10, 9) == []
    assert walk.ahead(SIZES, 10, 0) == []


def test_nothing_is_read_ahead_before_it_is_known_how_large_it_is() -> None:
    assert walked([(0, 0, 0), (0, 0, 1)]).ahead(SIZES, 0, 1000) == []


def test_the_end_of_an_axis_is_the_end() -> None:
    assert ahead([(0, 0, 13), (0, 0, 14)]) == [(0, 0, 15)]
    assert ahead([(0, 0, 14), (0, 0, 15)]) == []
    assert ahead([(0, 0, 1), (0, 0, 0)]) == []


# Two loops


def test_a_second_row_shows_the_outer_loop() -> None:
    calls = [*rows([3], range(16)), (0, 4, 0)]
    assert ahead(calls, max_entries=3) == [(0, 4, 1), (0, 4, 2), (0, 4, 3)]


def test_from_the_second_row_on_a_walk_goes_on_with_the_next_rows() -> None:
    calls = [*rows([0], range(16)), (0, 1, 0)]
    assert ahead(calls) == [*rows([1], range(1, 16)), (0, 2, 0), (0, 2, 1)]


def test_a_row_ends_where_the_first_one_ended() -> None:
    calls = rows([3, 4], [2, 5, 8])
    assert ahead(calls) == rows([5, 6], [2, 5, 8])


def test_both_loops_may_go_backwards_and_with_strides() -> None:
    calls = rows([11, 8], [9, 7, 5])
    assert ahead(calls) == rows([5, 2], [9, 7, 5])


def test_the_outer_loop_ends_at_the_end_of_its_axis() -> None:
    assert ahead(rows([9, 10], range(16))) == rows([11], range(16))
    assert ahead(rows([10, 11], range(16))) == []


def test_the_inner_loop_may_be_the_one_over_layers() -> None:
    calls = [(0, layer, head) for head in (0, 1) for layer in range(4)]
    assert ahead(calls) == [(0, layer, head) for head in (2, 3) for layer in range(4)]


def test_a_row_of_one_is_a_walk_along_the_outer_index() -> None:
    assert ahead(rows(range(3), [7])) == rows([3, 4, 5], [7])


# Where no walk is


def test_calls_that_change_two_indices_at_once_are_no_walk() -> None:
    walk = AccessPattern()
    for indices in [(0, 3, 7), (0, 9, 1), (1, 3, 12), (0, 11, 11), (0, 2, 3), (1, 6, 8)]:
        walk.step(indices)
        assert not walk.noticed
        assert walk.ahead(SIZES, 10, 1000) == []


@given(st.lists(st.tuples(*[st.integers(0, 11)] * 3), max_size=30))
@settings(deadline=None)
def test_random_jumps_are_never_read_ahead(calls: list[Indices]) -> None:
    """Every index changes in every jump."""
    walk, last = AccessPattern(), (-1, -1, -1)
    for indices in calls:
        if any(a == b for a, b in zip(last, indices, strict=True)):
            continue
        walk.step(indices)
        last = indices  # type: ignore[assignment]
        assert walk.ahead((12, 12, 12), 1, ENOUGH) == []


def test_a_jump_ends_a_walk() -> None:
    assert ahead([*rows([0], range(8)), (1, 5, 3)]) == []


def test_a_new_walk_begins_with_little() -> None:
    assert ahead([*rows([0], range(8)), (1, 5, 3), (1, 5, 4)]) == [(1, 5, 5), (1, 5, 6)]


def test_another_stride_is_another_walk() -> None:
    assert ahead([*rows([0], range(5)), (0, 0, 6)]) == [(0, 0, 8), (0, 0, 10)]


def test_another_outer_stride_is_another_walk() -> None:
    assert ahead([*rows([0, 1], range(4)), (0, 4, 0)]) == []


def test_an_index_that_is_left_out_takes_no_part() -> None:
    sizes = (2, 12, 30, 16)
    calls = [(0, 1, pos, None) for pos in range(3)]
    assert ahead(calls, sizes) == [(0, 1, pos, None) for pos in (3, 4, 5)]
    assert ahead([*calls, (0, 2, 0, None)], sizes, 2) == [(0, 2, 1, None), (0, 2, 2, None)]


@pytest.mark.parametrize("calls", [[(0, 1, None), (0, 1, 0)], [(0, 1, 0), (0, 1, None)]], ids=["first", "last"])
def test_from_none_to_a_number_is_no_step(calls: list[Indices]) -> None:
    assert not walked(calls).noticed
    assert ahead(calls) == []
    after = (0, 2, calls[-1][2])
    assert ahead([*calls, after]) == [(0, 3, after[2]), (0, 4, after[2])]


# Any calls


small_sizes = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 8))
any_index = st.none() | st.integers(-1, 8)


@given(small_sizes, st.lists(st.tuples(*[any_index] * 3), max_size=40), st.integers(0, 50), st.integers(0, 200))
@settings(deadline=None, max_examples=300)
def test_any_calls_read_ahead_within_the_axes_and_the_limits(
    sizes: tuple[int, int, int], calls: list[Indices], entry_bytes: int, max_bytes: int
) -> None:
    walk = AccessPattern()
    for steps, indices in enumerate(calls, 1):
        walk.step(indices)
        found = walk.ahead(sizes, entry_bytes, max_bytes)
        assert len(found) <= steps
        assert len(found) * entry_bytes <= max_bytes
        assert len(set(found)) == len(found)
        assert indices not in found
        for entry in found:
            for got, asked, size in zip(entry, indices, sizes, strict=True):
                assert got == asked or (got is not None and 0 <= got < size)


# Nested loops, with how much is sent in vain


@st.composite
def any_loop(draw: st.DrawFn, size: int) -> range:
    """A regular loop within an axis."""
    part = range(size)[draw(st.integers(0, size - 1)) :: draw(st.integers(1, 3))]
    part = part[: draw(st.integers(1, len(part)))]
    return part[::-1] if draw(st.booleans()) else part


@st.composite
def any_nested_loops(draw: st.DrawFn) -> tuple[Indices, list[Indices]]:
    """Sizes of three axes, and the calls of loops over them in any order, the innermost last."""
    sizes = draw(st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 20)))
    order = draw(st.permutations([0, 1, 2]))
    loops = [draw(any_loop(sizes[axis])) for axis in order]
    calls = []
    for position in product(*loops):
        by_axis = dict(zip(order, position, strict=True))
        calls.append((by_axis[0], by_axis[1], by_axis[2]))
    return sizes, calls


@given(any_nested_loops(), st.integers(1, 1000))
@example((SIZES, rows(range(4, 7), range(4, 7))), 1000)
@settings(deadline=None, max_examples=300)
def test_regular_loops_get_at_most_half_in_vain(loops: tuple[Indices, list[Indices]], max_entries: int) -> None:
    sizes, calls = loops
    seen = traffic(calls, sizes, max_entries)
    assert seen.in_vain <= seen.asked


@pytest.mark.parametrize(
    "calls",
    [
        [(0, step // 2, (step + 1) // 2) for step in range(24)],
        rows(range(12), [3, 7, 8]),
        [(0, 0, 50 + (step + 1) // 2 * (-1) ** step) for step in range(24)],
        [(0, 0, head) for head in (3, 4, 6, 5, 9)],
    ],
    ids=["stairs", "irregular rows", "zigzag", "jumps along one axis"],
)
def test_other_calls_get_at_most_half_in_vain(calls: list[Indices]) -> None:
    seen = traffic(calls, (2, 100, 100))
    assert seen.in_vain <= seen.asked


@pytest.mark.parametrize("inner", ["head", "layer"])
def test_loops_over_whole_axes_get_nothing_in_vain_and_need_few_calls(inner: str) -> None:
    calls = rows(range(12), range(16)) if inner == "head" else [(0, r, h) for h in range(16) for r in range(12)]
    seen = traffic(calls, SIZES)
    assert seen.in_vain == 0
    assert seen.calls <= 9  # of 192: each brings twice what the one before did


def test_a_long_walk_needs_calls_by_its_logarithm() -> None:
    calls: list[Indices] = [(position,) for position in range(1000)]
    assert traffic(calls, (1000,)).calls <= 11
    assert traffic(calls, (1000,), max_entries=100).calls <= 17


def test_three_loops_begin_again_with_the_outermost() -> None:
    calls: list[Indices] = list(product(range(4), range(12), range(16)))
    seen = traffic(calls, (4, 12, 16))
    assert seen.in_vain == 0
    assert seen.calls <= 4 * 9
