"""The last step as a linear map: the model's own logits for vectors that it never made, or a refusal."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import OlmoConfig, PreTrainedConfig

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.models.last_step import LastStepReference
from support.servers.servers import tiny
from transparent_llm.analysis.attribution import logit_attribution, logit_terms
from transparent_llm.analysis.readout import HasReadout, Readout, readout_of
from transparent_llm.errors import NotSupportedError
from transparent_llm_server import TransformerLensTransparentLlm

TOKENS = [7, 401, 0, 7]
RESIDUALS = 2.0 * torch.randn(3, 64, generator=torch.Generator().manual_seed(3)) + 0.7


@pytest.mark.parametrize("family", FAMILIES)
def test_it_gives_the_models_own_logits(family: str) -> None:
    llm = tiny(family)
    assert isinstance(llm, HasReadout)
    readout = readout_of(llm, TOKENS)
    assert readout.directions.dtype == readout.norm_bias.dtype == readout.unembed_bias.dtype == torch.float32
    got = readout.capped(readout.logits(RESIDUALS))
    wanted = llm.unembed(RESIDUALS, True)[:, TOKENS]
    assert (got - wanted).abs().max().item() <= 2e-6 * wanted.abs().max().item() + 2e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_its_parts_are_those_of_plain_hugging_face(family: str) -> None:
    readout, step = tiny(family).readout(TOKENS), LastStepReference(build_model(FAMILIES[family]()))
    whole = RESIDUALS[0]
    assert readout.soft_cap == step.cap
    assert abs(readout.scale(whole).item() - step.scale(whole)) <= 1e-5
    terms = RESIDUALS @ readout.directions.T / step.scale(whole)
    for column, token in enumerate(TOKENS):
        assert (terms[:, column] - step.terms(RESIDUALS, whole, token)).abs().max().item() <= 1e-5
        assert abs(readout.norm_bias[column].item() - step.norm_bias(token)) <= 1e-5
        assert abs(readout.unembed_bias[column].item() - step.unembed_bias(token)) <= 1e-6


def test_a_scale_is_that_of_each_vector() -> None:
    readout = tiny("gpt2").readout([1])
    many = readout.scale(RESIDUALS.reshape(3, 1, 64))
    assert many.shape == (3, 1)
    assert many.flatten().tolist() == pytest.approx([readout.scale(x).item() for x in RESIDUALS])
    assert many.flatten().tolist() == pytest.approx((RESIDUALS.var(dim=1, unbiased=False) + 1e-5).sqrt().tolist())


def test_only_gemma_2_caps() -> None:
    assert {name for name in FAMILIES if tiny(name).readout([0]).soft_cap is not None} == {"gemma2"}


def olmo() -> PreTrainedConfig:
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    tokens = {"vocab_size": 500, "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": 0}
    return OlmoConfig(**sizes, **tokens, max_position_embeddings=64)


def test_a_norm_without_weights_is_read_as_ones() -> None:
    llm = TransformerLensTransparentLlm("olmo", build_model(olmo()), build_tokenizer())
    llm.run_tokens([[5, 6, 7, 8]])
    terms = logit_terms(llm, 0, -1, 9)
    assert abs(terms.logit.item() - llm.logits()[0, -1, 9].item()) <= 1e-5
    assert terms.norm_bias.item() == 0.0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gpt_oss"])
def test_other_dtypes_are_compared_as_close_as_they_can_be(family: str, dtype: torch.dtype) -> None:
    llm = TransformerLensTransparentLlm(family, build_model(FAMILIES[family]()), build_tokenizer(), dtype=dtype)
    readout = llm.readout(TOKENS)
    assert readout.directions.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    x = RESIDUALS.to(dtype)
    wanted = llm.unembed(x, True)[:, TOKENS].float()
    relative = {torch.float64: 1e-6, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    assert (readout.capped(readout.logits(x)) - wanted).abs().max().item() <= relative * wanted.abs().max().item()


class Louder(torch.nn.LayerNorm):
    """Does what its parameters do not say."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1.01 * super().forward(x)


class OtherEps(torch.nn.LayerNorm):
    """Adds more under its root than it says."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.layer_norm(x, self.normalized_shape, self.weight, self.bias, 10 * self.eps)


@pytest.mark.parametrize("norm", [Louder, OtherEps])
def test_a_last_step_that_is_not_what_it_seems_is_refused(norm: type[torch.nn.LayerNorm]) -> None:
    model = build_model(FAMILIES["gpt2"]())
    model.transformer.ln_f.__class__ = norm
    llm = TransformerLensTransparentLlm("odd", model, build_tokenizer())
    llm.run_tokens([[5, 6, 7, 8]])
    for _ in range(2):
        with pytest.raises(NotSupportedError, match="GPT2LMHeadModel cannot be attributed to parts of the residual"):
            logit_terms(llm, 0, -1, 9)


@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_weights_on_disk_are_read_as_those_in_memory(
    family: str, family_folders: dict[str, Path], tmp_path: Path
) -> None:
    whole = tiny(family)
    spread = TransformerLensTransparentLlm(
        str(family_folders[family]), device_map=map_of(family, tmp_path), offload_dir=tmp_path / "offloaded"
    )
    assert_same_readout(spread.readout(TOKENS), whole.readout(TOKENS))


def map_of(family: str, folder: Path) -> str:
    """The first layer in memory, all else on disk."""
    others = ("wte", "wpe", "drop", "ln_f") if family == "gpt2" else ("embed_tokens", "norm", "rotary_emb")
    inner, layers = ("transformer", "h") if family == "gpt2" else ("model", "layers")
    places = dict.fromkeys((*(f"{inner}.{name}" for name in others), "lm_head", f"{inner}.{layers}.1"), "disk")
    path = folder / "map.json"
    path.write_text(json.dumps({**places, f"{inner}.{layers}.0": "cpu"}), encoding="utf-8")
    return str(path)


def assert_same_readout(got: Readout, wanted: Readout) -> None:
    for one, other in zip(vars(got).values(), vars(wanted).values(), strict=True):
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


@pytest.mark.skipif(find_spec("torchao") is None, reason="torchao is not installed")
@pytest.mark.filterwarnings("default")  # of that package
def test_quantized_weights_are_read_as_floating_numbers(family_folders: dict[str, Path]) -> None:
    llm = TransformerLensTransparentLlm(str(family_folders["llama_gqa"]), quantization="torchao-int8")
    llm.run_tokens([[5, 6, 7, 8]])
    terms = logit_terms(llm, 0, -1, 9)
    assert abs(terms.logit.item() - llm.logits()[0, -1, 9].item()) <= 1e-5
    layers = [logit_attribution(llm, 0, layer, -1, 9) for layer in range(2)]
    total = terms.embedding + sum(part.heads.sum() + part.attn_bias + part.ffn for part in layers)
    assert abs(total.item() - terms.logit.item()) <= 1e-5


def test_weights_that_were_edited_are_read_as_they_are_now() -> None:
    model = build_model(FAMILIES["gpt2"]())
    llm = TransformerLensTransparentLlm("edited", model, build_tokenizer())
    before = llm.readout([9])
    with torch.no_grad():
        model.transformer.ln_f.weight.mul_(2.0)
    assert torch.allclose(llm.readout([9]).directions, 2 * before.directions, atol=1e-6)
    llm.run_tokens([[5, 6, 7, 8]])
    assert abs(logit_terms(llm, 0, -1, 9).logit.item() - llm.logits()[0, -1, 9].item()) <= 1e-5
