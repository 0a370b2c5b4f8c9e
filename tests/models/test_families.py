"""What differs between model families: who is refused and why, and the last step to the logits."""

from __future__ import annotations

import math

import pytest
import torch
from transformers import (
    Cohere2Config,
    CohereConfig,
    Gemma2Config,
    GemmaConfig,
    GPT2Config,
    GraniteConfig,
    GraniteMoeConfig,
    LlamaConfig,
    PreTrainedConfig,
)

from support.models.families import FAMILIES, REFUSED
from transparent_llm.errors import ModelRefusedError
from transparent_llm_server.models.families import finish_logits, logit_scale, refuse_if_known_wrong, soft_cap

FALCON = (
    "Falcon with new_decoder_architecture (40B, 180B): TransformerLens splits its fused query-key-value weights "
    "contiguously although they are interleaved by group, so attention would be wrong. The model is not served."
)
BLOOM = (
    "Bloom with apply_residual_connection_post_layernorm: the stream that blocks add to is the normalised one, "
    "so residual_in plus the attention output is not residual_after_attn. The model is not served."
)
OPT = (
    "OPT with do_layer_norm_before=False (OPT-350m): the stream is normalised again after every addition, "
    "so there is no residual stream that the parts of a layer sum up to. The model is not served."
)
NEOX = (
    "GPT-NeoX with attention_bias=False: TransformerLens splits its fused query-key-value weights together with "
    "biases that it does not have. The model is not served."
)
WHY = {
    "falcon_new_decoder": ("falcon", FALCON),
    "falcon_new_decoder_no_mq": ("falcon", FALCON),
    "bloom_post_ln_residual": ("bloom", BLOOM),
    "opt_post_norm": ("opt", OPT),
    "gpt_neox_no_bias": ("gpt_neox", NEOX),
}


def finished(config: PreTrainedConfig, *logits: float) -> list[float]:
    return finish_logits(torch.tensor(logits, dtype=torch.float64), config).tolist()


# Refusals


def test_every_refused_variant_is_tried_here() -> None:
    assert set(WHY) == set(REFUSED)


@pytest.mark.parametrize("variant", REFUSED)
def test_a_variant_that_would_give_wrong_values_is_refused(variant: str) -> None:
    family, message = WHY[variant]
    with pytest.raises(ModelRefusedError) as refused:
        refuse_if_known_wrong(REFUSED[variant]())
    assert refused.value.message == message
    assert refused.value.reason == "MODEL_REFUSED"
    assert refused.value.metadata == {"family": family}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_supported_family_is_not_refused(name: str) -> None:
    refuse_if_known_wrong(FAMILIES[name]())


# The last step to the logits


def test_granite_divides() -> None:
    assert finished(GraniteConfig(logits_scaling=8.0), 8.0, -20.0) == [1.0, -2.5]


def test_granite_moe_divides_too() -> None:
    assert finished(GraniteMoeConfig(logits_scaling=4.0), 8.0) == [2.0]


def test_cohere_multiplies() -> None:
    assert finished(CohereConfig(logit_scale=0.25), 8.0, -2.0) == [2.0, -0.5]


def test_cohere_2_multiplies_too() -> None:
    assert finished(Cohere2Config(logit_scale=0.5), 8.0) == [4.0]


def test_gemma_2_caps_softly() -> None:
    half = 30.0 * math.atanh(0.5)  # tanh gives 0.5
    got = finished(Gemma2Config(final_logit_softcapping=30.0), 0.0, half, -half, 1e9, -math.inf)
    assert got == pytest.approx([0.0, 15.0, -15.0, 30.0, -30.0], abs=1e-12)


@pytest.mark.parametrize(
    "config",
    [
        Gemma2Config(final_logit_softcapping=None),
        GemmaConfig(),
        GPT2Config(),
        LlamaConfig(logits_scaling=8.0, logit_scale=0.5, final_logit_softcapping=1.0),
    ],
    ids=["gemma2_without_cap", "gemma", "gpt2", "llama_with_foreign_names"],
)
def test_other_models_take_the_product_as_it_is(config: PreTrainedConfig) -> None:
    assert finished(config, 8.0, -20.0) == [8.0, -20.0]
    assert logit_scale(config) == 1.0
    assert soft_cap(config) is None


@pytest.mark.parametrize(
    ("config", "scale", "cap"),
    [
        (GraniteConfig(logits_scaling=8.0), 0.125, None),
        (Cohere2Config(logit_scale=0.5), 0.5, None),
        (Gemma2Config(final_logit_softcapping=30.0), 1.0, 30.0),
    ],
    ids=["granite", "cohere2", "gemma2"],
)
def test_the_scale_and_the_cap_are_known_apart(config: PreTrainedConfig, scale: float, cap: float | None) -> None:
    assert logit_scale(config) == scale
    assert soft_cap(config) == cap


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize(
    "config",
    [GraniteConfig(logits_scaling=8.0), CohereConfig(logit_scale=0.25), Gemma2Config(final_logit_softcapping=30.0)],
    ids=lambda config: config.model_type,
)
def test_logits_keep_their_dtype(config: PreTrainedConfig, dtype: torch.dtype) -> None:
    assert finish_logits(torch.ones(2, dtype=dtype), config).dtype is dtype


@pytest.mark.parametrize("config", [GraniteConfig(logits_scaling=8.0), Gemma2Config()], ids=lambda c: c.model_type)
def test_the_product_itself_is_not_written_to(config: PreTrainedConfig) -> None:
    product = torch.tensor([8.0])
    finish_logits(product, config)
    assert product.tolist() == [8.0]
