"""The frames of gRPC-Web: one message comes, in whatever pieces; trailers go, whatever they say."""

from __future__ import annotations

from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.network.grpc_web import frame, parsed
from transparent_llm_server.http.grpc_web import (
    Arriving,
    RefusedError,
    Status,
    message_frame,
    timeout_of,
    trailers_frame,
)

MOST = 64


def read(body: bytes, cuts: list[int]) -> bytes:
    arriving, begins = Arriving(MOST), 0
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        arriving.add(body[begins:cut])
        begins = cut
    return arriving.message()


@given(st.binary(max_size=MOST), st.lists(st.integers(0, 100), max_size=4))
def test_a_message_is_the_same_in_whatever_pieces_it_comes(message: bytes, cuts: list[int]) -> None:
    assert read(frame(message), cuts) == message
    assert message_frame(message) == frame(message)


@given(st.binary(max_size=MOST + 20), st.lists(st.integers(0, 100), max_size=4))
def test_whatever_else_comes_is_refused(body: bytes, cuts: list[int]) -> None:
    is_message = len(body) >= 5 and body[0] == 0 and int.from_bytes(body[1:5], "big") == len(body) - 5 <= MOST
    if is_message:
        assert read(body, cuts) == body[5:]
    else:
        with pytest.raises(RefusedError):
            read(body, cuts)


@given(st.text(max_size=200), st.integers(0, 16), st.binary(max_size=100))
def test_trailers_say_any_words_in_lines_of_their_own(words: str, code: int, details: bytes) -> None:
    answer = parsed(trailers_frame(Status(code, words, details)), {})
    assert answer.messages == []
    assert answer.trailers["grpc-status"] == str(code)
    said = answer.trailers.get("grpc-message", "")
    assert unquote(said).strip() == words.encode("utf-8", "replace").decode().strip()
    assert set(answer.trailers) <= {"grpc-status", "grpc-message", "grpc-status-details-bin"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("2H", 7200), ("3M", 180), ("4S", 4), ("250m", 0.25), ("5u", 5e-6), ("7n", 7e-9), ("0S", 0)]
)
def test_timeouts_have_units(text: str, seconds: float) -> None:
    assert timeout_of(text) == pytest.approx(seconds)
