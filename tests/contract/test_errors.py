"""Errors: the same class, text and numbers from every backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from support.servers.backends import Backend
from transparent_llm import TransparentLlm, errors

FAMILY = "gpt2"
Action = Callable[[TransparentLlm], object]

READS: dict[str, Action] = {
    "batch_size": lambda llm: llm.batch_size(),
    "tokens": lambda llm: llm.tokens(),
    "mask": lambda llm: llm.mask(),
    "logits": lambda llm: llm.logits(),
    "residual_in": lambda llm: llm.residual_in(0),
    "residual_after_attn": lambda llm: llm.residual_after_attn(0),
    "residual_out": lambda llm: llm.residual_out(0),
    "ffn_out": lambda llm: llm.ffn_out(0),
    "decomposed_ffn_out": lambda llm: llm.decomposed_ffn_out(0, 0, 0),
    "neuron_activations": lambda llm: llm.neuron_activations(0, 0, 0),
    "attention_matrix": lambda llm: llm.attention_matrix(0, 0, 0),
    "attention_output": lambda llm: llm.attention_output(0, 0, 0),
    "attention_output_per_head": lambda llm: llm.attention_output_per_head(0, 0, 0, 0),
    "decomposed_attn": lambda llm: llm.decomposed_attn(0, 0),
}

OUT_OF_RANGE: dict[str, tuple[Action, str]] = {
    "residual_in": (lambda llm: llm.residual_in(2), "layer 2 is out of range: valid indices are 0 to 1"),
    "residual_after_attn": (
        lambda llm: llm.residual_after_attn(-3),
        "layer -3 is out of range: valid indices are 0 to 1, or -2 to -1 from the end",
    ),
    "residual_out": (lambda llm: llm.residual_out(99), "layer 99 is out of range: valid indices are 0 to 1"),
    "ffn_out": (lambda llm: llm.ffn_out(2), "layer 2 is out of range: valid indices are 0 to 1"),
    "ffn row": (lambda llm: llm.decomposed_ffn_out(2, 0, 0), "batch_i 2 is out of range: valid indices are 0 to 1"),
    "ffn layer": (lambda llm: llm.decomposed_ffn_out(0, 2, 0), "layer 2 is out of range: valid indices are 0 to 1"),
    "ffn pos": (lambda llm: llm.decomposed_ffn_out(0, 0, 4), "pos 4 is out of range: valid indices are 0 to 3"),
    "activation pos": (
        lambda llm: llm.neuron_activations(1, 0, -3),
        "pos -3 is out of range: valid indices are 0 to 3, or -2 to -1 from the end of the row's tokens",
    ),
    "neuron": (lambda llm: llm.neuron_output(0, 256), "neuron 256 is out of range: valid indices are 0 to 255"),
    "neuron layer": (lambda llm: llm.neuron_output(2, 0), "layer 2 is out of range: valid indices are 0 to 1"),
    "matrix head": (lambda llm: llm.attention_matrix(0, 0, 4), "head 4 is out of range: valid indices are 0 to 3"),
    "matrix row": (
        lambda llm: llm.attention_matrix(-3, 0, 0),
        "batch_i -3 is out of range: valid indices are 0 to 1, or -2 to -1 from the end",
    ),
    "output head": (lambda llm: llm.attention_output(0, 0, 0, 4), "head 4 is out of range: valid indices are 0 to 3"),
    "output pos": (lambda llm: llm.attention_output(0, 0, 4), "pos 4 is out of range: valid indices are 0 to 3"),
    "parts row": (lambda llm: llm.decomposed_attn(2, 0), "batch_i 2 is out of range: valid indices are 0 to 1"),
}


@pytest.fixture
def fresh(backend: Backend) -> TransparentLlm:
    return backend.open(FAMILY)


@pytest.fixture
def ran(fresh: TransparentLlm) -> TransparentLlm:
    fresh.run_tokens([[1, 2, 3, 4], [5, 6]])
    return fresh


@pytest.mark.parametrize("name", list(READS))
def test_reading_before_run(name: str, fresh: TransparentLlm) -> None:
    with pytest.raises(errors.NotRunError) as caught:
        READS[name](fresh)
    assert str(caught.value) == "nothing has been run yet: call run([sentence, ...]) first"
    assert caught.value.reason == "NOT_RUN"
    assert isinstance(caught.value, RuntimeError)


def test_what_needs_no_run_works_before_it(fresh: TransparentLlm) -> None:
    assert fresh.model_info().n_layers == 2
    assert fresh.neuron_output(0, 0).shape == (64,)
    assert fresh.unembed(torch.zeros(64), normalize=False).shape == (500,)
    assert len(fresh.tokens_to_strings(torch.tensor([1, 2]))) == 2


@pytest.mark.parametrize("case", list(OUT_OF_RANGE))
def test_an_index_out_of_range(case: str, ran: TransparentLlm) -> None:
    action, text = OUT_OF_RANGE[case]
    with pytest.raises(errors.IndexOutOfRangeError) as caught:
        action(ran)
    assert str(caught.value) == text
    assert isinstance(caught.value, IndexError)
    assert caught.value.reason == "INDEX_OUT_OF_RANGE"
    axis, got = text.split()[:2]
    assert caught.value.metadata["axis"] == axis
    assert caught.value.metadata["got"] == got
    last = text.partition("valid indices are 0 to ")[2].partition(",")[0]
    assert int(caught.value.metadata["size"]) == int(last) + 1


def test_an_index_that_no_wire_can_carry(ran: TransparentLlm) -> None:
    with pytest.raises(IndexError, match=r"^layer 1099511627776 is out of range: "):
        ran.residual_in(2**40)


@pytest.mark.parametrize(
    ("layer", "got"),
    [
        (1.0, "float 1.0"),
        ("1", "str '1'"),
        ([0, 1], "list; for several of them, ask for each: fetch takes a list of reads"),
        (slice(2), "slice; for several of them, ask for each: fetch takes a list of reads"),
        (torch.tensor([0, 1]), "Tensor of shape [2]; for several of them, ask for each: fetch takes a list of reads"),
    ],
)
def test_a_layer_that_is_no_integer(layer: Any, got: str, ran: TransparentLlm) -> None:
    for read in (ran.residual_out, lambda layer: ran.neuron_output(layer, 0)):
        with pytest.raises(errors.InvalidRequestError) as caught:
            read(layer)
        assert str(caught.value) == f"layer must be an integer, got {got}"
    with pytest.raises(errors.InvalidRequestError, match=r"^pos must be an integer, got "):
        ran.neuron_activations(0, 0, layer)


def test_an_integer_of_any_kind_is_an_index(ran: TransparentLlm) -> None:
    for one in (np.int64(1), torch.tensor(1), True):
        assert torch.equal(ran.residual_out(one), ran.residual_out(1))


@pytest.mark.parametrize(
    ("action", "reason", "text"),
    [
        (lambda llm: llm.run([]), "EMPTY_INPUT", "nothing to run: give at least one sentence"),
        (
            lambda llm: llm.run_tokens([[1], []]),
            "EMPTY_INPUT",
            "sentence 1 has no token; leave it out or give it text",
        ),
        (
            lambda llm: llm.run("one string"),
            "INVALID_REQUEST",
            "run takes a list of sentences, got str; for one sentence write run([sentence])",
        ),
        (
            lambda llm: llm.run_tokens([[1, 500]]),
            "UNKNOWN_TOKEN",
            "token 500 is not in the vocabulary: ids are 0 to 499",
        ),
        (
            lambda llm: llm.tokens_to_strings(torch.tensor([3, 777])),
            "UNKNOWN_TOKEN",
            "token 777 is not in the vocabulary: ids are 0 to 499",
        ),
        (
            lambda llm: llm.unembed(torch.zeros(65), True),
            "INVALID_SHAPE",
            "unembed takes a vector of d_model = 64 elements, or a matrix of such rows, got shape [65]",
        ),
        (
            lambda llm: llm.unembed(torch.zeros(64, dtype=torch.int64), True),
            "INVALID_DTYPE",
            "unembed takes a floating vector, got torch.int64",
        ),
        (
            lambda llm: llm.unembed([0.5] * 64, True),
            "INVALID_DTYPE",
            "unembed takes a torch.Tensor as t, got list: write torch.as_tensor(t)",
        ),
        (
            lambda llm: llm.unembed(np.zeros(64), True),
            "INVALID_DTYPE",
            "unembed takes a torch.Tensor as t, got ndarray of shape [64]: write torch.as_tensor(t)",
        ),
        (
            lambda llm: llm.unembed(torch.zeros(64).to_sparse(), True),
            "INVALID_DTYPE",
            "unembed takes a dense tensor as t, got one of layout torch.sparse_coo: write t.to_dense()",
        ),
        (
            lambda llm: llm.unembed(torch.zeros(64), "no"),
            "INVALID_REQUEST",
            "normalize must be True or False, got str 'no'",
        ),
        (
            lambda llm: llm.run({"a sentence": 1}),
            "INVALID_REQUEST",
            "run takes a list of sentences, got dict; write list(...) of the part that has them",
        ),
        (
            lambda llm: llm.run(pd.DataFrame({"text": ["a sentence"]})),
            "INVALID_REQUEST",
            "run takes a list of sentences, got DataFrame; write list(...) of the part that has them",
        ),
        (
            lambda llm: llm.tokens_to_strings("abc"),
            "INVALID_REQUEST",
            "tokens must be one row of token ids [pos], such as llm.tokens()[0], got str 'abc'",
        ),
        (
            lambda llm: llm.tokens_to_strings(torch.zeros(2, 3, dtype=torch.int64)),
            "INVALID_REQUEST",
            "tokens must be one row of token ids [pos], such as llm.tokens()[0], got Tensor of shape [2, 3]",
        ),
        (
            lambda llm: llm.tokens_to_strings([1, 2.5]),
            "INVALID_REQUEST",
            "tokens must be integers, got float 2.5",
        ),
    ],
)
def test_an_argument_that_can_never_be_right(action: Action, reason: str, text: str, fresh: TransparentLlm) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        action(fresh)
    assert (caught.value.reason, str(caught.value)) == (reason, text)
    assert isinstance(caught.value, ValueError)


def test_a_sentence_longer_than_the_context_is_refused_not_truncated(fresh: TransparentLlm) -> None:
    with pytest.raises(errors.TooLargeError) as caught:
        fresh.run_tokens([[1], [7] * 65])
    assert str(caught.value) == (
        "sentence 1 has 65 tokens, the model's context is 64; shorten it or split it, nothing is truncated silently"
    )
    assert caught.value.reason == "TOO_LONG"
    assert caught.value.metadata == {"sentence": "1", "needed": "65", "allowed": "64"}
    fresh.run_tokens([[7] * 64])
    assert fresh.tokens().shape == (1, 64)


def test_a_failed_run_leaves_the_current_one(ran: TransparentLlm) -> None:
    before = ran.logits()
    with pytest.raises(errors.InvalidRequestError):
        ran.run([])
    assert torch.equal(ran.logits(), before)
