"""Direct logit attribution: every term as float64 arithmetic on plain Hugging Face values has it, and their sums."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import direct_logit_attribution

from support.models.batch import LENGTHS, ROWS
from support.models.families import D_MODEL, FAMILIES, N_HEADS, build_model, build_tokenizer, hybrid_config
from support.models.last_step import LastStepReference
from support.models.reference import HuggingFaceReference
from support.servers.servers import tiny
from transparent_llm import TransparentLlm
from transparent_llm.analysis.attribution import (
    LogitAttribution,
    logit_attribution,
    logit_terms,
    neuron_attribution,
    source_attribution,
)
from transparent_llm.analysis.readout import Readout
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotRunError, NotSupportedError
from transparent_llm_server import TransformerLensTransparentLlm

TOKEN, OTHER = 7, 401
PLACES = [(0, 15), (1, 2)]
"""Row and position: the last of the longest row, one within a row that padding follows."""

IN_FLOAT64 = ["gpt2", "gpt_neo", "gptj", "phi", "opt", "falcon", "bloom", "mpt", "stablelm", "starcoder2"]
"""Their final norm computes in the dtype of the model, those of others in float32 always."""

BRANCHES_IN_FLOAT64 = [*IN_FLOAT64, "llama_gqa", "qwen3", "mixtral", "qwen3_moe", "gpt_oss", "cohere", "gemma", "phi3"]
"""No norm follows a branch, which would compute in float32 always, and no multiplier that is kept in float32."""


@cache
def run_of(family: str, dtype: torch.dtype = torch.float32) -> TransformerLensTransparentLlm:
    llm = tiny(family).copy() if dtype == torch.float32 else loaded(family, dtype)
    llm.run_tokens(ROWS)
    return llm


def loaded(family: str, dtype: torch.dtype) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(family, build_model(FAMILIES[family]()), build_tokenizer(), dtype=dtype)


@cache
def plain(family: str) -> tuple[HuggingFaceReference, LastStepReference]:
    model = build_model(FAMILIES[family]())
    reference = HuggingFaceReference(model, build_tokenizer(), prepend_bos=False)
    reference.run_tokens(ROWS)
    return reference, LastStepReference(model)


def n_layers(llm: TransparentLlm) -> int:
    return llm.model_info().n_layers


def assert_near(got: torch.Tensor, wanted: torch.Tensor | float, tolerance: float = 1e-5) -> None:
    wanted = torch.as_tensor(wanted, dtype=torch.float64)
    assert got.shape == wanted.shape
    assert (got.double() - wanted).abs().max().item() <= tolerance


def layer_of(terms: LogitAttribution) -> torch.Tensor:
    return terms.heads.sum() + terms.attn_bias + terms.ffn


# Against plain Hugging Face


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_of_the_model_are_those_of_its_definition(family: str, place: tuple[int, int]) -> None:
    llm, (reference, step) = run_of(family), plain(family)
    residual = reference.residual_out(n_layers(llm) - 1)[place]
    terms = logit_terms(llm, *place, TOKEN)
    assert_near(terms.embedding, step.terms(reference.residual_in(0)[place], residual, TOKEN))
    for layer in range(n_layers(llm)):
        added = reference.residual_out(layer)[place] - reference.residual_in(layer)[place]
        assert_near(terms.layers[layer], step.terms(added, residual, TOKEN))
    assert_near(terms.norm_bias, step.norm_bias(TOKEN))
    assert_near(terms.unembed_bias, step.unembed_bias(TOKEN))
    assert_near(terms.scale, step.scale(residual))
    assert_near(terms.logit.new_tensor(step.output(terms.logit.item())), reference.logits()[(*place, TOKEN)].double())


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_terms_of_a_layer_are_those_of_its_definition(family: str, place: tuple[int, int]) -> None:
    llm, (reference, step) = run_of(family), plain(family)
    (row, pos), info = place, llm.model_info()
    residual = reference.residual_out(info.n_layers - 1)[place]
    for layer in range(info.n_layers):
        got = logit_attribution(llm, row, layer, pos, TOKEN, OTHER)
        heads = torch.stack([reference.attention_output(row, layer, pos, head) for head in range(info.n_heads)])
        parts = (heads, reference.attention_bias(row, layer, pos), reference.ffn_out(layer)[place])
        for found, part in zip(got, (*parts, reference.ffn_bias(row, layer, pos)), strict=True):
            wanted = step.terms(part, residual, TOKEN) - step.terms(part, residual, OTHER)
            assert_near(found, wanted)


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_of_sources_are_those_of_their_definition(family: str) -> None:
    llm, (reference, step) = run_of(family), plain(family)
    residual = reference.residual_out(n_layers(llm) - 1)
    for (row, pos), layer in zip(PLACES, (0, 1), strict=True):
        got = source_attribution(llm, row, layer, pos, TOKEN)
        assert got.dtype == torch.float32
        moved = reference.decomposed_attn(row, layer)[pos]
        assert_near(got, step.terms(moved, residual[row, pos], TOKEN).T)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_strongest_neurons_and_the_rest_are_those_of_a_full_sort(family: str) -> None:
    llm, (reference, step) = run_of(family), plain(family)
    row, pos = PLACES[0]
    residual = reference.residual_out(n_layers(llm) - 1)[row, pos]
    for layer in range(n_layers(llm)):
        got = neuron_attribution(llm, row, layer, pos, TOKEN, OTHER, k=9)
        parts = reference.decomposed_ffn_out(row, layer, pos)
        wanted = step.terms(parts, residual, TOKEN) - step.terms(parts, residual, OTHER)
        assert got.ids.dtype == torch.int64
        assert_near(got.values, wanted[got.ids])
        assert_near(got.values.abs(), wanted.abs().sort(descending=True).values[:9])
        assert_near(got.rest, wanted.sum() - wanted[got.ids].sum())


# Sums


@pytest.mark.parametrize("family", FAMILIES)
def test_terms_sum_to_the_models_own_logit(family: str) -> None:
    llm = run_of(family)
    for row, length in enumerate(LENGTHS):
        terms = logit_terms(llm, row, -1, TOKEN)
        total = terms.embedding + terms.norm_bias + terms.unembed_bias
        for layer in range(n_layers(llm)):
            total = total + layer_of(logit_attribution(llm, row, layer, -1, TOKEN))
        assert_near(total, terms.logit.double())
        output = llm.readout([TOKEN]).capped(total)
        assert_near(output, llm.logits()[row, length - 1, TOKEN].double())


@pytest.mark.parametrize("family", IN_FLOAT64)
def test_in_float64_terms_sum_to_the_models_own_logit_to_rounding(family: str) -> None:
    llm = run_of(family, torch.float64)
    total = float_sum(llm)
    assert abs(total - llm.logits()[0, -1, TOKEN].item()) <= 1e-9 * abs(total)


@pytest.mark.parametrize("family", BRANCHES_IN_FLOAT64)
def test_in_float64_terms_sum_to_the_logit_to_rounding(family: str) -> None:
    llm = run_of(family, torch.float64)
    total = float_sum(llm)
    assert abs(total - logit_terms(llm, 0, -1, TOKEN).logit.item()) <= 1e-9 * abs(total)


def float_sum(llm: TransparentLlm) -> float:
    """Of the smallest parts there are: sources of heads, neurons, biases."""
    terms = logit_terms(llm, 0, -1, TOKEN)
    parts = [terms.embedding, terms.norm_bias, terms.unembed_bias]
    for layer in range(n_layers(llm)):
        of_layer = logit_attribution(llm, 0, layer, -1, TOKEN)
        neurons = neuron_attribution(llm, 0, layer, -1, TOKEN, k=3)
        sources = source_attribution(llm, 0, layer, -1, TOKEN)
        parts += [sources.sum(), of_layer.attn_bias, neurons.values.sum(), neurons.rest, of_layer.ffn_bias]
    assert {part.dtype for part in parts} == {torch.float64}
    return float(sum(part.item() for part in parts))


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral"])
def test_a_difference_is_the_difference(family: str) -> None:
    llm = run_of(family)
    terms = [logit_terms(llm, 0, 9, *tokens) for tokens in ((TOKEN, OTHER), (TOKEN,), (OTHER,))]
    assert terms[0].scale == terms[1].scale == terms[2].scale
    for difference, one, other in zip(*(found[:-1] for found in terms), strict=True):
        assert_near(difference, (one - other).double())
    both = logit_attribution(llm, 0, 1, 9, TOKEN, OTHER)
    alone = [logit_attribution(llm, 0, 1, 9, token) for token in (TOKEN, OTHER)]
    for difference, one, other in zip(both, *alone, strict=True):
        assert_near(difference, (one - other).double())


# Rows and padding


@pytest.mark.parametrize("family", ["gpt2", "gemma3", "qwen3_moe"])
def test_a_row_of_a_batch_has_the_terms_of_the_sentence_alone(family: str) -> None:
    batch, alone = run_of(family), tiny(family).copy()
    alone.run_tokens([ROWS[1]])
    n = LENGTHS[1]
    for together, single in zip(logit_terms(batch, 1, -1, TOKEN), logit_terms(alone, 0, n - 1, TOKEN), strict=True):
        assert_near(together, single.double())
    for layer in range(n_layers(batch)):
        pairs = zip(
            (*logit_attribution(batch, -2, layer, -1, TOKEN), *neuron_attribution(batch, 1, layer, -1, TOKEN, k=9)[1:]),
            (*logit_attribution(alone, 0, layer, -1, TOKEN), *neuron_attribution(alone, 0, layer, -1, TOKEN, k=9)[1:]),
            strict=True,
        )
        for together, single in pairs:
            assert_near(together, single.double())
        sources = source_attribution(batch, 1, layer, -1, TOKEN)
        assert_near(sources[:, :n], source_attribution(alone, 0, layer, -1, TOKEN).double())
        assert not sources[:, n:].any()


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_a_padded_position_has_no_terms(family: str) -> None:
    llm, pos = run_of(family), LENGTHS[1]
    assert not any(term.any() for term in logit_terms(llm, 1, pos, TOKEN))
    assert not any(term.any() for term in logit_attribution(llm, 1, 1, pos, TOKEN))
    assert not source_attribution(llm, 1, 1, pos, TOKEN).any()
    neurons = neuron_attribution(llm, 1, 1, pos, TOKEN, k=4)
    assert neurons.ids.tolist() == [0, 1, 2, 3]
    assert not neurons.values.any()
    assert not neurons.rest.any()


# TransformerLens


def test_it_agrees_with_transformer_lens_but_for_constants_of_heads() -> None:
    llm, hf_model = run_of("gpt2"), build_model(FAMILIES["gpt2"]())
    constants = [constant_of_heads(block).double() for block in hf_model.transformer.h]
    tokenizer = build_tokenizer()
    tokenizer.init_kwargs.update(name_or_path="", add_bos_token=True)  # or the bridge asks the hub for it
    bridge = TransformerBridge.boot_transformers(
        "local/gpt2", hf_model=hf_model, tokenizer=tokenizer, device="cpu", trust_remote_code=False
    )
    bridge.enable_compatibility_mode()
    tokens = (torch.tensor([ROWS[0]]), TOKEN, OTHER)
    theirs = direct_logit_attribution(bridge, *tokens, unit="head")
    heads = dict(zip(theirs.labels, theirs.attribution.flatten().double(), strict=True))
    theirs = direct_logit_attribution(bridge, *tokens)
    components = dict(zip(theirs.labels, theirs.attribution.flatten().double(), strict=True))
    _, step = plain("gpt2")
    residual = llm.residual_out(-1)[0, -1]
    for layer in range(n_layers(llm)):
        ours = logit_attribution(llm, 0, layer, -1, TOKEN, OTHER)
        folded = step.terms(constants[layer], residual, TOKEN) - step.terms(constants[layer], residual, OTHER)
        for head in range(N_HEADS):
            assert_near(ours.heads[head], heads[f"L{layer}H{head}"] + folded[head], 1e-4)
        assert_near(ours.heads.sum() + ours.attn_bias, components[f"{layer}_attn_out"], 1e-4)
        assert_near(ours.ffn, components[f"{layer}_mlp_out"], 1e-4)
    embedding = logit_terms(llm, 0, -1, TOKEN, OTHER).embedding
    assert_near(embedding, components["embed"] + components["pos_embed"], 1e-4)


def constant_of_heads(block: Any) -> torch.Tensor:
    """What biases of the norm before and of values give through each head [head d_model], whatever it looks at; there
    it is folded into the bias of attention."""
    biases = block.attn.c_attn.bias[-D_MODEL:] + block.ln_1.bias @ block.attn.c_attn.weight[:, -D_MODEL:]
    return torch.einsum("hi,hid->hd", biases.view(N_HEADS, -1), block.attn.c_proj.weight.view(N_HEADS, -1, D_MODEL))


# Other implementations


class OtherImplementation(HuggingFaceReference):
    """The contract and a readout, and nothing that knows weights."""

    def readout(self, tokens: list[int]) -> Readout:
        return tiny(self.model_info().name).readout(tokens)


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "mixtral", "llama_gqa", "gpt_oss"])
def test_any_implementation_that_has_a_readout_gives_the_same(family: str) -> None:
    ours = run_of(family)
    other = OtherImplementation(build_model(FAMILIES[family]()), build_tokenizer(), family, prepend_bos=False)
    other.run_tokens(ROWS)
    for row, pos in PLACES:
        for one, two in zip(logit_terms(ours, row, pos, TOKEN), logit_terms(other, row, pos, TOKEN), strict=True):
            assert_near(one, two.double())
        for one, two in zip(
            logit_attribution(ours, row, 1, pos, TOKEN), logit_attribution(other, row, 1, pos, TOKEN), strict=True
        ):
            assert_near(one, two.double())
        sources = source_attribution(other, row, 1, pos, TOKEN)
        assert_near(source_attribution(ours, row, 1, pos, TOKEN), sources.double())
        mine, theirs = (neuron_attribution(llm, row, 1, pos, TOKEN, k=5) for llm in (ours, other))
        assert mine.ids.tolist() == theirs.ids.tolist()
        assert_near(mine.values, theirs.values.double())
        assert_near(mine.rest, theirs.rest.double())


def test_an_implementation_without_a_readout_says_so() -> None:
    reference, _ = plain("gpt2")
    with pytest.raises(
        NotSupportedError, match="HuggingFaceReference does not say how logits are made of the residual"
    ):
        logit_terms(reference, 0, -1, TOKEN)


# What cannot be


def test_a_layer_without_heads_has_its_term_in_the_terms_of_the_model() -> None:
    llm = TransformerLensTransparentLlm("hybrid", build_model(hybrid_config()), build_tokenizer())
    llm.run_tokens(ROWS)
    with pytest.raises(NotSupportedError, match="layer 0 of Lfm2ForCausalLM: it has no attention heads"):
        logit_attribution(llm, 0, 0, -1, TOKEN)
    terms = logit_terms(llm, 0, -1, TOKEN)
    assert_near(terms.embedding + terms.layers.sum() + terms.norm_bias + terms.unembed_bias, terms.logit.double())
    assert_near(terms.logit, llm.logits()[0, -1, TOKEN].double())
    assert_near(layer_of(logit_attribution(llm, 0, 1, -1, TOKEN)), terms.layers[1].double())


def test_what_cannot_be_is_refused_in_words() -> None:
    llm = run_of("gpt2")
    with pytest.raises(InvalidRequestError, match="token 500 is not in the vocabulary: ids are 0 to 499"):
        logit_terms(llm, 0, 0, 500)
    with pytest.raises(InvalidRequestError, match="minus_token -1 is not in the vocabulary"):
        logit_attribution(llm, 0, 0, 0, 1, -1)
    with pytest.raises(InvalidRequestError, match="k must be 1 to 256, the number of neurons of layer 0, got 0"):
        neuron_attribution(llm, 0, 0, 0, 1, k=0)
    with pytest.raises(IndexOutOfRangeError, match="layer 2 is out of range: valid indices are 0 to 1"):
        logit_attribution(llm, 0, 2, 0, 1)
    with pytest.raises(IndexOutOfRangeError, match="batch_i 3 is out of range: valid indices are 0 to 2"):
        source_attribution(llm, 3, 0, 0, 1)
    with pytest.raises(IndexOutOfRangeError, match="pos 16 is out of range: valid indices are 0 to 15"):
        neuron_attribution(llm, 0, 0, 16, 1, k=1)
    with pytest.raises(IndexOutOfRangeError, match=r"pos -6 is out of range: .* or -5 to -1 from the end of the row's"):
        logit_terms(llm, 1, -6, 1)
    with pytest.raises(NotRunError):
        logit_terms(tiny("llama_bias").copy(), 0, 0, 1)


def test_all_neurons_leave_no_rest() -> None:
    llm = run_of("gpt2")
    found = neuron_attribution(llm, 0, 0, -1, TOKEN, k=4 * D_MODEL)
    assert sorted(found.ids.tolist()) == list(range(4 * D_MODEL))
    assert found.rest.item() == 0.0
