"""Inputs of runs and answers to them: what is accepted, what travels, what names a run."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from transparent_llm.errors import InvalidRequestError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.runs import RunResult, from_request, from_response

TOKEN_IDS = st.integers(0, 2**31 - 1)
INPUTS = st.lists(st.text()).map(RunInput.of_sentences) | st.lists(st.lists(TOKEN_IDS)).map(RunInput.of_tokens)
SENTENCES_EXPECTED = "run takes a list of sentences, got {}; for one sentence write run([sentence])"


def refusal(sentences: Any) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        RunInput.of_sentences(sentences)
    return refused.value


def token_refusal(rows: Sequence[Sequence[int]]) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        RunInput.of_tokens(rows)
    return refused.value


# Input


def test_sentences_are_kept_as_they_are() -> None:
    run_input = RunInput.of_sentences(["a", "", " b\n", "🙂\0"])
    assert run_input == RunInput(sentences=("a", "", " b\n", "🙂\0"), token_ids=None)


@pytest.mark.parametrize("sentence", ["a sentence", ""])
def test_a_single_string_is_no_list_of_sentences(sentence: str) -> None:
    error = refusal(sentence)
    assert error.message == SENTENCES_EXPECTED.format("str")
    assert error.reason == "INVALID_REQUEST"


@pytest.mark.parametrize("sentences", [["a", 3], [b"a"], [None], [["a"]], b"bytes", {1: "a"}], ids=repr)
def test_anything_but_strings_is_refused(sentences: object) -> None:
    assert refusal(sentences).reason == "INVALID_REQUEST"


def test_a_generator_of_sentences_is_not_taken_for_an_empty_list() -> None:
    sentences: Any = (sentence for sentence in ["a", "b"])
    with suppress(InvalidRequestError):  # which would do too
        assert RunInput.of_sentences(sentences).sentences == ("a", "b")


def test_half_of_a_surrogate_pair_is_refused_with_its_place() -> None:
    error = refusal(["fine", "ab\ud83d"])
    assert error.message == "sentence 1 is not valid Unicode at character 2: surrogates not allowed"
    assert error.metadata == {"sentence": "1"}


@pytest.mark.parametrize(
    "rows", [[[1, 2], [3, 4]], ((1, 2), (3, 4)), torch.tensor([[1, 2], [3, 4]])], ids=["lists", "tuples", "tensor"]
)
def test_token_ids_become_plain_numbers(rows: Sequence[Sequence[int]]) -> None:
    run_input = RunInput.of_tokens(rows)
    assert run_input == RunInput(sentences=None, token_ids=((1, 2), (3, 4)))
    assert {type(token) for row in run_input.token_ids or () for token in row} == {int}


@pytest.mark.parametrize("token", [-1, 2**31, -(2**70)])
def test_a_number_that_no_vocabulary_has_is_refused(token: int) -> None:
    error = token_refusal([[0], [1, token]])
    assert error.message == f"token {token} is not in the vocabulary: ids begin at 0 and no vocabulary is that large"
    assert error.reason == "UNKNOWN_TOKEN"
    assert error.metadata == {"token": str(token)}


@pytest.mark.parametrize("token", [1.0, "1"], ids=repr)
def test_a_token_that_is_no_whole_number_is_refused(token: Any) -> None:
    assert token_refusal([[token]]).message.startswith("run_tokens takes a list of token ids for each row: ")


def test_the_largest_token_id_of_the_wire_is_accepted() -> None:
    request = requests.run(RunInput.of_tokens([[2**31 - 1]]), "")
    assert from_request(request).token_ids == ((2**31 - 1,),)


# Requests


def test_sentences_travel_as_sentences() -> None:
    expected = service_pb2.RunRequest(model="m", sentences=service_pb2.SentenceBatch(sentences=["a", "b"]))
    assert requests.run(RunInput.of_sentences(["a", "b"]), "m") == expected


def test_token_ids_travel_row_by_row() -> None:
    rows = [service_pb2.TokenSequence(token_ids=[1, 2]), service_pb2.TokenSequence(token_ids=[3])]
    expected = service_pb2.RunRequest(model="m", tokens=service_pb2.TokenBatch(sequences=rows))
    assert requests.run(RunInput.of_tokens([[1, 2], [3]]), "m") == expected


@given(INPUTS, st.text())
def test_any_input_arrives_as_it_was(run_input: RunInput, model: str) -> None:
    request = service_pb2.RunRequest.FromString(requests.run(run_input, model).SerializeToString())
    assert from_request(request) == run_input
    assert request.model == model


def test_a_request_without_input_has_no_sentences() -> None:
    assert from_request(service_pb2.RunRequest(model="m")) == RunInput(sentences=())


def test_a_release_names_the_run() -> None:
    assert requests.release("ab12") == service_pb2.ReleaseRunRequest(run_id="ab12")


# The routing key


@pytest.mark.parametrize(
    ("run_input", "model", "parts"),
    [
        (RunInput.of_sentences(["a", "ä", ""]), "gpt2", [b"gpt2", b"sentences", b"a", b"\xc3\xa4", b""]),
        (RunInput.of_tokens([[1, 2**31 - 1], []]), "", [b"", b"tokens", b"\0\0\0\x01\x7f\xff\xff\xff", b""]),
    ],
)
def test_the_key_is_the_same_in_every_process_version_and_language(
    run_input: RunInput, model: str, parts: list[bytes]
) -> None:
    hashed = b"".join(bytes(7) + bytes([len(part)]) + part for part in parts)
    assert run_input.key(model) == hashlib.sha256(hashed).hexdigest()[:32]


def test_equal_inputs_have_one_key() -> None:
    assert RunInput.of_tokens([[1, 2]]).key("m") == RunInput.of_tokens(torch.tensor([[1, 2]])).key("m")  # type: ignore[arg-type]


def test_different_runs_have_different_keys() -> None:
    inputs = [
        RunInput.of_sentences([]),
        RunInput.of_sentences([""]),
        RunInput.of_sentences(["a", "b"]),
        RunInput.of_sentences(["b", "a"]),
        RunInput.of_sentences(["ab"]),
        RunInput.of_sentences(['a", "b']),
        RunInput.of_tokens([]),
        RunInput.of_tokens([[]]),
        RunInput.of_tokens([[1, 2]]),
        RunInput.of_tokens([[1], [2]]),
        RunInput.of_tokens([[12]]),
    ]
    keys = {run_input.key(model) for run_input in inputs for model in ("", "m", "n")}
    assert len(keys) == 3 * len(inputs)


# Answers


def answer(mask: torch.Tensor | None) -> RunResult:
    tokens = torch.tensor([[5, 6, 7], [8, 0, 0]])
    return RunResult("ab12", tokens, mask, ("a", " b", "�", "", "\0", "ä"), 2**40, "d" * 64)


def travelled(result: RunResult) -> RunResult:
    message = service_pb2.RunResponse.FromString(result.to_wire().SerializeToString())
    return from_response(message, RunInput.of_sentences(["first", "second"]))


@pytest.mark.parametrize("mask", [None, torch.tensor([[True] * 3, [True, False, False]])], ids=["without", "with"])
def test_an_answer_arrives_as_it_was(mask: torch.Tensor | None) -> None:
    got, expected = travelled(answer(mask)), answer(mask)
    assert got.tokens.dtype is torch.int64
    assert torch.equal(got.tokens, expected.tokens)
    assert (got.run_id, got.token_strings) == (expected.run_id, expected.token_strings)
    assert (got.stored_bytes, got.model_digest) == (expected.stored_bytes, expected.model_digest)


def test_a_mask_arrives_as_booleans_of_the_same_shape() -> None:
    mask = torch.tensor([[True, True, True], [True, False, False]])
    got = travelled(answer(mask)).mask
    assert got is not None
    assert got.dtype is torch.bool
    assert torch.equal(got, mask)


def test_an_answer_without_a_mask_has_none() -> None:
    assert travelled(answer(None)).mask is None


def test_a_mask_that_is_all_padding_is_not_taken_for_none() -> None:
    assert travelled(answer(torch.zeros(2, 3, dtype=torch.bool))).mask is not None


def test_an_answer_says_its_shape() -> None:
    message = answer(None).to_wire()
    assert (message.batch_size, message.n_pos) == (2, 3)
    assert list(message.token_ids) == [5, 6, 7, 8, 0, 0]
