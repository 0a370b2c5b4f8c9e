"""Models and tokenizers that are handed over, or that belong to something else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    GPT2ForSequenceClassification,
)

from attack.checkpoint_folders import load, saved
from support.models.checkpoints import (
    Damage,
    damaged,
    without,
)
from support.models.families import FAMILIES, build_model, build_tokenizer
from transparent_llm.errors import InvalidRequestError, ModelRefusedError
from transparent_llm_server import TransformerLensTransparentLlm


def given(model: Any) -> None:
    TransformerLensTransparentLlm("given", hf_model=model, tokenizer=build_tokenizer())


def test_a_model_that_is_handed_over_without_numbers_is_refused() -> None:
    with torch.device("meta"):
        empty = AutoModelForCausalLM.from_config(FAMILIES["llama_gqa"](), trust_remote_code=False)
    with pytest.raises(
        ModelRefusedError, match=r"LlamaForCausalLM is not served: 2\d of its weights have no values yet"
    ):
        given(empty)
    half = build_model(FAMILIES["llama_gqa"]())
    half.model.layers[1].mlp.up_proj.to("meta")
    with pytest.raises(
        ModelRefusedError, match=r"1 of its weights have no values yet: model\.layers\.1\.mlp\.up_proj\.w"
    ):
        given(half)
    lazy = build_model(FAMILIES["llama_gqa"]())
    lazy.model.layers[1].mlp.up_proj = nn.LazyLinear(96, bias=False)
    with pytest.raises(ModelRefusedError, match=r"1 of its weights have no values yet"):
        given(lazy)


def test_a_model_that_is_handed_over_and_is_none_is_refused() -> None:
    adapted = build_model(FAMILIES["llama_gqa"]())
    adapted._hf_peft_config_loaded = True  # as transformers marks it
    with pytest.raises(ModelRefusedError, match="LlamaForCausalLM has an adapter: merge it"):
        given(adapted)
    with pytest.raises(ModelRefusedError, match="GPT2ForSequenceClassification has no language-model head"):
        given(GPT2ForSequenceClassification(FAMILIES["gpt2"]()))
    with pytest.raises(ModelRefusedError, match="Linear is not a causal language model of transformers"):
        given(nn.Linear(2, 2))


def test_a_model_that_takes_pictures_fetches_and_installs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TransformerLens would ask the hub for `local/Gemma3ForConditionalGeneration`, and run pip."""
    asked: list[str] = []
    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lambda *_, **__: asked.append("the hub"))
    monkeypatch.setattr("subprocess.check_call", lambda *_, **__: asked.append("pip"))
    pictures = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    sees = Gemma3Config(
        text_config=FAMILIES["gemma3"]().to_dict(),
        vision_config={**pictures, "image_size": 28, "patch_size": 14},
        mm_tokens_per_image=4,
        image_token_index=499,
        boi_token_index=498,
        eoi_token_index=497,
    )
    folder = saved(build_model(sees), tmp_path / "sees")
    assert load(folder).describe().architecture == "Gemma3ForConditionalGeneration"
    assert asked == []
    with pytest.raises(ModelRefusedError, match=r"lack model\.vision_tower\..* would be random numbers"):
        load(damaged(folder, tmp_path / "blind", without("vision_tower")))


def with_words(words: int) -> Damage:
    """The tokenizer of a model with more words."""

    def damage(folder: Path) -> None:
        held = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = held["model"]["vocab"]
        vocabulary.update({f"word{number}": number for number in range(len(vocabulary), words)})
        (folder / "tokenizer.json").write_text(json.dumps(held), encoding="utf-8")

    return damage


def test_the_tokenizer_of_a_larger_model_is_refused(whole: Callable[[str], Path], tmp_path: Path) -> None:
    load(damaged(whole("gpt2"), tmp_path / "full", with_words(500)))
    with pytest.raises(
        ModelRefusedError, match=r"that of another model: its token 'word500' has the id 500, the model has"
    ):
        load(damaged(whole("gpt2"), tmp_path / "model", with_words(501)))


def test_tokens_that_were_added_may_lie_outside_the_model_unless_every_sentence_has_one() -> None:
    tokenizer = build_tokenizer()
    tokenizer.add_tokens([f"<{number}>" for number in range(50)])
    llm = TransformerLensTransparentLlm("x", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
    with pytest.raises(InvalidRequestError, match="is not in the vocabulary"):
        llm.run(["<49>"])
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<49> $A", special_tokens=[("<49>", tokenizer.convert_tokens_to_ids("<49>"))]
    )
    with pytest.raises(ModelRefusedError, match=r"puts token 529 into every sentence, the model has 500 tokens"):
        TransformerLensTransparentLlm("x", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
