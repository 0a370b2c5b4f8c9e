"""How much a message holds, told without parsing it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.runs import n_entries, n_sentences, n_tokens, text_bytes

MANY = 10**9


@given(st.lists(st.text()) | st.lists(st.lists(st.integers(0, 2**31 - 1))), st.text())
def test_rows_are_counted_with_the_fields_beside_them(rows: list[str] | list[list[int]], model: str) -> None:
    if all(isinstance(row, str) for row in rows):
        request = requests.run(RunInput(sentences=tuple(rows)), model)  # type: ignore[arg-type]
    else:
        request = requests.run(RunInput(token_ids=tuple(map(tuple, rows))), model)
    assert n_entries(request.SerializeToString(), MANY) == len(rows) + 1 + bool(model)
    assert n_sentences(request) == len(rows)


def test_no_more_are_looked_at_than_are_asked_for() -> None:
    request = requests.run(RunInput(sentences=("a",) * 1000), "")
    data = request.SerializeToString()
    assert n_entries(data, 10) == 10
    assert n_entries(data[:500] + b"\xff" * (len(data) - 500), 10) == 10  # what comes later is not seen


def test_text_and_tokens_are_measured() -> None:
    assert text_bytes(requests.run(RunInput(sentences=("é", "a")), "")) == 3
    assert n_tokens(requests.run(RunInput(sentences=("é", "a")), "")) == 0
    assert n_tokens(requests.run(RunInput(token_ids=((1, 2, 3), (1,))), "")) == 6
    assert (n_sentences(service_pb2.RunRequest()), n_tokens(service_pb2.RunRequest())) == (0, 0)


@pytest.mark.parametrize("field", [b"\x08\x96\x01", b"\x11" + bytes(8), b"\x1d" + bytes(4), b"\x22\x02ab"])
def test_fields_of_all_kinds_are_passed_over(field: bytes) -> None:
    assert count_entries(field * 3 + b"\x12\x00", (2,), MANY) == 4


@given(st.binary(max_size=50))
def test_any_bytes_have_a_count(data: bytes) -> None:
    assert 0 <= count_entries(data, (2, 3), 10) <= 10


@pytest.mark.parametrize("data", [b"\x80" * 1_000_000, b"\x12" + b"\xff" * 9 + b"\x01", b"\x13" * 9, b"\x12\x05ab"])
def test_what_is_no_message_ends_the_count(data: bytes) -> None:
    assert count_entries(data, (2,), MANY) == 0
