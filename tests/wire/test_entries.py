"""Entries are counted as generated code counts them, but no further than need be."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transparent_llm.run_input import RunInput
from transparent_llm.wire._gen.service_pb2 import FetchItem, FetchRequest, LogitsRequest
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.runs import to_request

ROWS = ((2, 3), (1,))
INPUTS = st.lists(st.text(max_size=300), max_size=20).map(RunInput.of_sentences) | st.lists(
    st.lists(st.integers(0, 2**31 - 1), max_size=200), max_size=20
).map(RunInput.of_tokens)


@given(INPUTS, st.text(max_size=200), st.integers(0, 25))
def test_rows_are_counted(run_input: RunInput, model: str, most: int) -> None:
    rows = len(run_input.sentences or run_input.token_ids or ())
    assert count_entries(to_request(run_input, model).SerializeToString(), ROWS, most) == min(rows, most + 1)


@given(st.integers(0, 40), st.text(max_size=200))
def test_items_are_counted(count: int, run_id: str) -> None:
    request = FetchRequest(run_id=run_id, items=[FetchItem(logits=LogitsRequest(run_id="x"))] * count)
    request.options.resume_offset, request.options.slices.add().axis = 2**60, "pos"
    assert count_entries(request.SerializeToString(), ((2,),), 30) == min(count, 31)


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"", 0), (b"\x12", 0), (b"\x12\x00\x12\x05", 2), (b"\x12\x00\x0b", 1), (b"\xff" * 30, 0), (b"\x12\x00\x09ab", 1)],
    ids=str,
)
def test_of_what_is_no_message_those_before_the_damage_count(data: bytes, count: int) -> None:
    assert count_entries(data, ((2,),), 10) == count


@given(st.binary(max_size=200))
def test_any_bytes_are_counted(data: bytes) -> None:
    assert 0 <= count_entries(data, ROWS, 5) <= 6


def test_no_more_is_looked_at_than_need_be() -> None:
    assert count_entries(b"\x12\x00" * 2_000_000, ((2,),), 4096) == 4097
