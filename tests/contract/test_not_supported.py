"""What an architecture truly does not have answers NOT_SUPPORTED; everything else of it is served."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from support.models.families import build_model, build_tokenizer, hybrid_config
from transparent_llm import TransparentLlm, errors
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[TransformerLensTransparentLlm, TransparentLlm]]:
    local = TransformerLensTransparentLlm("hybrid", hf_model=build_model(hybrid_config()), tokenizer=build_tokenizer())
    with serve_in_process(local) as remote:
        local.run_tokens([[1, 2, 3, 4]])
        remote.run_tokens([[1, 2, 3, 4]])
        yield local, remote


HEADS = {"AttentionMatrix", "AttentionOutput", "DecomposedAttn", "HeadWeights", "CompositionScores", "CopyingScores"}
READS: list[tuple[str, Callable[[TransparentLlm], object]]] = [
    ("attention_matrix", lambda llm: llm.attention_matrix(0, 0, 0)),
    ("attention_output", lambda llm: llm.attention_output(0, 0, 0, 0)),
    ("decomposed_attn", lambda llm: llm.decomposed_attn(0, 0)),
]


@pytest.mark.parametrize(("name", "read"), READS)
def test_a_layer_without_heads_says_so(
    name: str, read: Callable[[TransparentLlm], object], models: tuple[TransparentLlm, TransparentLlm]
) -> None:
    for llm in models:
        with pytest.raises(errors.NotSupportedError) as caught:
            read(llm)
        assert isinstance(caught.value, NotImplementedError)
        assert str(caught.value) == (
            f"{name} is not supported for layer 0 of Lfm2ForCausalLM: it has no attention heads"
        )
        assert caught.value.metadata == {"method": name, "architecture": "Lfm2ForCausalLM", "layer": "0"}


def test_the_description_says_it_before_anyone_asks(
    models: tuple[TransformerLensTransparentLlm, TransparentLlm],
) -> None:
    unsupported = models[0].describe().unsupported
    assert {method: unsupported[method] for method in HEADS} == dict.fromkeys(HEADS, "layers 0 have no attention heads")


def test_all_else_of_the_model_is_served(models: tuple[TransformerLensTransparentLlm, TransparentLlm]) -> None:
    local, remote = models
    for read in (
        lambda llm: llm.logits(),
        lambda llm: llm.residual_in(1),
        lambda llm: llm.residual_out(0),
        lambda llm: llm.ffn_out(0),
        lambda llm: llm.neuron_activations(0, 0, 1),
        lambda llm: llm.attention_matrix(0, 1, 3),
        lambda llm: llm.decomposed_attn(0, 1),
    ):
        assert torch.equal(read(remote), read(local))
    parts, whole = remote.decomposed_attn(0, 1).sum(dim=(1, 2)), remote.residual_after_attn(1) - remote.residual_in(1)
    assert (parts - whole[0]).abs().max().item() <= 1e-5
