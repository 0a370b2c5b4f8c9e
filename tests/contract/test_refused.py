"""Models that would give wrong values are refused at load, with the reason."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from support.models.families import FAMILIES, REFUSED, build_model, build_tokenizer, save
from transparent_llm import errors
from transparent_llm_server import TransformerLensTransparentLlm

WHY = {
    "falcon_new_decoder": "Falcon with new_decoder_architecture",
    "falcon_new_decoder_no_mq": "Falcon with new_decoder_architecture",
    "bloom_post_ln_residual": "Bloom with apply_residual_connection_post_layernorm",
    "opt_post_norm": "OPT with do_layer_norm_before=False",
    "gpt_neox_no_bias": "GPT-NeoX with attention_bias=False",
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_a_family_that_is_known_to_be_wrong(name: str, tmp_path: Path) -> None:
    with pytest.raises(errors.ModelRefusedError, match=rf"^{WHY[name]}.*The model is not served.$") as caught:
        TransformerLensTransparentLlm(str(save(name, tmp_path)))
    assert caught.value.reason == "MODEL_REFUSED"


@pytest.mark.parametrize("name", list(REFUSED))
def test_the_same_handed_over_in_memory(name: str) -> None:
    with pytest.raises(errors.ModelRefusedError, match=rf"^{WHY[name]}"):
        TransformerLensTransparentLlm(name, hf_model=build_model(REFUSED[name]()), tokenizer=build_tokenizer())


def test_a_model_whose_bridge_computes_something_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known wrong Falcon, let past the list: the comparison with Hugging Face catches it by its numbers."""
    monkeypatch.setattr("transparent_llm_server.models.families.REFUSALS", ())
    model = build_model(REFUSED["falcon_new_decoder_no_mq"]())
    with pytest.raises(errors.ModelRefusedError, match=r"logits_vs_huggingface: .* is over") as caught:
        TransformerLensTransparentLlm("falcon", hf_model=model, tokenizer=build_tokenizer())
    assert float(caught.value.metadata["logits_vs_huggingface"]) > 0.1


def test_a_library_that_fails_without_a_word_is_told_by_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The NeoX that the bridge cannot split, let past the list: all that it raises is an empty AssertionError."""
    monkeypatch.setattr("transparent_llm_server.models.families.REFUSALS", ())
    model = build_model(REFUSED["gpt_neox_no_bias"]())
    said = (
        r"cannot bridge GPTNeoXForCausalLM: AssertionError without a word, in transformer_lens\..*\.split_qkv_matrix$"
    )
    with pytest.raises(errors.ModelRefusedError, match=said):
        TransformerLensTransparentLlm("neox", hf_model=model, tokenizer=build_tokenizer())


def test_a_model_whose_parts_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The known wrong Bloom: its logits are right, its identities are not."""
    monkeypatch.setattr("transparent_llm_server.models.families.REFUSALS", ())
    model = build_model(REFUSED["bloom_post_ln_residual"]())
    with pytest.raises(errors.ModelRefusedError, match=r"residual_sum: .* is over"):
        TransformerLensTransparentLlm("bloom", hf_model=model, tokenizer=build_tokenizer())


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_weight_that_is_no_finite_number(value: str) -> None:
    model = build_model(FAMILIES["gpt2"]())
    model.transformer.ln_f.weight.data[0] = float(value)
    with pytest.raises(errors.ModelRefusedError, match=r"weight transformer\.ln_f\.weight has elements that are no"):
        TransformerLensTransparentLlm("nan", hf_model=model, tokenizer=build_tokenizer())


def test_a_model_that_gives_nan() -> None:
    model = build_model(FAMILIES["gpt2"]())
    model.transformer.ln_f.weight.data[:] = 3e38  # finite, but what it gives is not
    with pytest.raises(errors.ModelRefusedError, match="logits_vs_huggingface: nan is over"):
        TransformerLensTransparentLlm("nan", hf_model=model, tokenizer=build_tokenizer())


def test_a_model_that_is_bridged_already() -> None:
    model = build_model(FAMILIES["gpt2"]())
    TransformerLensTransparentLlm("once", hf_model=model, tokenizer=build_tokenizer())
    with pytest.raises(errors.InvalidRequestError, match="hf_model is already taken over"):
        TransformerLensTransparentLlm("twice", hf_model=model, tokenizer=build_tokenizer())


def test_a_folder_with_pickled_weights_only(tmp_path: Path) -> None:
    folder = save("gpt2", tmp_path)
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(errors.InvalidRequestError, match=r"cannot load model .* from the folder"):
        TransformerLensTransparentLlm(str(folder))


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r"no tokenizer|cannot load model"):
        TransformerLensTransparentLlm(str(tmp_path))


def test_what_the_checks_measured_is_reported(family_folders: dict[str, Path]) -> None:
    description = TransformerLensTransparentLlm(str(family_folders["gemma2"])).describe()
    assert {check.name for check in description.parity} == {
        "logits_vs_huggingface",
        "residual_vs_huggingface",
        "attention_vs_huggingface",
        "attention_sum",
        "ffn_sum",
        "residual_sum",
        "unembed_of_last_residual",
        "row_vs_row_alone",
    }
    assert all(0 <= check.max_abs_error <= 1e-5 < check.tolerance for check in description.parity)
