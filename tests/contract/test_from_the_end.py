"""Negative indices: the values, to the bit, of the indices from the start that they stand for."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from support.servers.backends import Backend
from transparent_llm import TransparentLlm

FAMILY = "gpt2"  # 2 layers, 4 heads, 256 neurons
ROWS = [[1, 2, 3, 4], [5, 6]]
Read = Callable[[TransparentLlm], torch.Tensor]

SAME: dict[str, tuple[Read, Read]] = {
    "residual_in": (lambda llm: llm.residual_in(-1), lambda llm: llm.residual_in(1)),
    "residual_after_attn": (lambda llm: llm.residual_after_attn(-2), lambda llm: llm.residual_after_attn(0)),
    "residual_out": (lambda llm: llm.residual_out(-2), lambda llm: llm.residual_out(0)),
    "ffn_out": (lambda llm: llm.ffn_out(-1), lambda llm: llm.ffn_out(1)),
    "decomposed_ffn_out": (lambda llm: llm.decomposed_ffn_out(-2, -1, -2), lambda llm: llm.decomposed_ffn_out(0, 1, 2)),
    "activations, short row": (
        lambda llm: llm.neuron_activations(-1, 0, -1),
        lambda llm: llm.neuron_activations(1, 0, 1),
    ),
    "neuron_output": (lambda llm: llm.neuron_output(-1, -256), lambda llm: llm.neuron_output(1, 0)),
    "attention_matrix": (lambda llm: llm.attention_matrix(-1, -1, -1), lambda llm: llm.attention_matrix(1, 1, 3)),
    "attention_output": (lambda llm: llm.attention_output(0, -1, -1), lambda llm: llm.attention_output(0, 1, 3)),
    "a head, short row": (
        lambda llm: llm.attention_output(1, -1, -2, -4),
        lambda llm: llm.attention_output(1, 1, 0, 0),
    ),
    "decomposed_attn": (lambda llm: llm.decomposed_attn(-2, -2), lambda llm: llm.decomposed_attn(0, 0)),
}


@pytest.fixture
def ran(backend: Backend) -> TransparentLlm:
    llm = backend.open(FAMILY)
    llm.run_tokens(ROWS)
    return llm


@pytest.mark.parametrize("name", list(SAME))
def test_a_negative_index_is_the_one_that_it_stands_for(name: str, ran: TransparentLlm) -> None:
    from_the_end, from_the_start = SAME[name]
    assert torch.equal(from_the_end(ran), from_the_start(ran))


def test_a_weight_before_any_run(backend: Backend) -> None:
    llm = backend.open(FAMILY).copy()
    assert torch.equal(llm.neuron_output(-2, -1), llm.neuron_output(0, 255))


def test_the_last_position_is_the_last_token_of_each_row(ran: TransparentLlm) -> None:
    assert ran.last().tolist() == [3, 1]
