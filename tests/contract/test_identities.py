"""What the definitions promise of one another, on what a user sees."""

from __future__ import annotations

import pytest
import torch

from support.models.batch import LENGTHS, assert_close
from support.models.reference import HuggingFaceReference
from transparent_llm import TransparentLlm


@pytest.fixture
def last(llm: TransparentLlm) -> int:
    return llm.model_info().n_layers - 1


def test_a_layers_output_is_the_next_layers_input(llm: TransparentLlm, last: int) -> None:
    for layer in range(last):
        assert torch.equal(llm.residual_out(layer), llm.residual_in(layer + 1))


def test_the_stream_is_what_its_parts_add_up_to(llm: TransparentLlm, last: int) -> None:
    real = llm.mask()
    for layer in range(last + 1):
        attention = torch.stack([llm.attention_output(0, layer, pos) for pos in range(LENGTHS[0])])
        assert_close(llm.residual_in(layer)[0] + attention, llm.residual_after_attn(layer)[0])
        total = llm.residual_after_attn(layer) + llm.ffn_out(layer)
        assert_close(total[real], llm.residual_out(layer)[real])


def test_sources_sum_to_heads_and_heads_to_attention(
    llm: TransparentLlm, reference: HuggingFaceReference, last: int
) -> None:
    parts = llm.decomposed_attn(1, last)
    for pos in (0, LENGTHS[1] - 1):
        heads = torch.stack([llm.attention_output_per_head(1, last, pos, h) for h in range(parts.shape[2])])
        assert_close(parts[pos].sum(dim=0), heads)
        whole = heads.sum(dim=0) + reference.attention_bias(1, last, pos)
        assert_close(whole, llm.attention_output(1, last, pos))


def test_neurons_sum_to_the_feed_forward_output(
    llm: TransparentLlm, reference: HuggingFaceReference, last: int
) -> None:
    for row, length in enumerate(LENGTHS):
        summed = llm.decomposed_ffn_out(row, last, length - 1).sum(dim=0)
        bias = reference.ffn_bias(row, last, length - 1)
        assert_close(summed + bias, llm.ffn_out(last)[row, length - 1])


def test_activations_times_output_vectors_are_the_contributions_up_to_the_gain(
    family: str, llm: TransparentLlm, last: int
) -> None:
    activations, contributions = llm.neuron_activations(0, last, 7), llm.decomposed_ffn_out(0, last, 7)
    assert activations.shape[0] == contributions.shape[0]
    for neuron in (0, 17, activations.shape[0] - 1):
        product = activations[neuron] * llm.neuron_output(last, neuron)
        if family in ("gemma2", "gemma3", "olmo2"):  # the norm after the branch scales every component by itself
            assert torch.equal(product == 0, contributions[neuron] == 0)
        else:
            multiplier = 0.7 if family == "granite" else 1.0
            assert_close(product * multiplier, contributions[neuron])


def test_the_last_residual_unembeds_to_the_logits(llm: TransparentLlm, last: int) -> None:
    for row, length in enumerate(LENGTHS):
        vector = llm.residual_out(last)[row, length - 1]
        assert_close(llm.unembed(vector, normalize=True), llm.logits()[row, length - 1])


def test_no_position_attends_to_a_later_one_or_to_padding(llm: TransparentLlm, last: int) -> None:
    for row, length in enumerate(LENGTHS):
        matrix = llm.attention_matrix(row, last, 2)[:length]
        assert torch.equal(matrix, matrix.tril())
        assert not matrix[:, length:].any()
        assert (matrix.sum(dim=1) > 0.05).all()
