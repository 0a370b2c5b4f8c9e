"""Every method of the contract against an independent computation on plain Hugging Face."""

from __future__ import annotations

import pytest
import torch

from support.models.batch import LENGTHS, assert_close
from support.models.reference import HuggingFaceReference
from transparent_llm import TransparentLlm


def layers(llm: TransparentLlm) -> range:
    return range(llm.model_info().n_layers)


def positions() -> list[tuple[int, int]]:
    """(row, position): the first and the last real one of each row."""
    return [(row, pos) for row, length in enumerate(LENGTHS) for pos in (0, length - 1)]


def test_model_info_is_that_of_the_configuration(
    family: str, llm: TransparentLlm, reference: HuggingFaceReference
) -> None:
    got, wanted = llm.model_info(), reference.model_info()
    assert got.name == family
    for field in ("n_params_estimate", "n_layers", "n_heads", "d_model", "d_vocab"):
        assert getattr(got, field) == getattr(wanted, field), field


def test_tokens_are_padded_on_the_right_and_the_mask_says_where(
    llm: TransparentLlm, reference: HuggingFaceReference
) -> None:
    assert llm.batch_size() == 3
    assert torch.equal(llm.mask(), reference.mask())
    assert torch.equal(llm.tokens()[llm.mask()], reference.tokens()[reference.mask()])
    assert llm.tokens().dtype == torch.int64
    assert llm.mask().sum(dim=1).tolist() == list(LENGTHS)


def test_token_strings_are_the_tokenizers_own(llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    ids = torch.arange(480)
    assert llm.tokens_to_strings(ids) == reference.tokens_to_strings(ids)


def test_logits(llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    assert_close(llm.logits()[llm.mask()], reference.logits()[reference.mask()])


@pytest.mark.parametrize("name", ["residual_in", "residual_after_attn", "residual_out", "ffn_out"])
def test_streams(name: str, llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        assert_close(getattr(llm, name)(layer)[llm.mask()], getattr(reference, name)(layer)[reference.mask()])


@pytest.mark.parametrize("normalize", [True, False])
def test_unembed(normalize: bool, llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    vector = reference.residual_out(layers(llm)[-1])[0, 3]
    assert_close(llm.unembed(vector, normalize), reference.unembed(vector, normalize))


@pytest.mark.parametrize("name", ["neuron_activations", "decomposed_ffn_out"])
def test_neurons(name: str, llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        for row, pos in positions():
            assert_close(getattr(llm, name)(row, layer, pos), getattr(reference, name)(row, layer, pos))


def test_neuron_output(llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        for neuron in (0, 41, len(llm.neuron_activations(0, layer, 0)) - 1):
            assert torch.equal(llm.neuron_output(layer, neuron), reference.neuron_output(layer, neuron))


def test_attention_matrix(llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        for row, length in enumerate(LENGTHS):
            for head in (0, 3):
                got, wanted = (model.attention_matrix(row, layer, head) for model in (llm, reference))
                assert_close(got[:length, :length], wanted[:length, :length])


@pytest.mark.parametrize("head", [0, 3, None])
def test_attention_output(head: int | None, llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        for row, pos in positions():
            got, wanted = (model.attention_output(row, layer, pos, head) for model in (llm, reference))
            assert_close(got, wanted)


def test_decomposed_attn(llm: TransparentLlm, reference: HuggingFaceReference) -> None:
    for layer in layers(llm):
        for row, length in enumerate(LENGTHS):
            got, wanted = (model.decomposed_attn(row, layer) for model in (llm, reference))
            assert_close(got[:length, :length], wanted[:length, :length])
