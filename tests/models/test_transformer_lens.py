"""The engine by itself: what it keeps, what it does to the model it takes over, how it is named."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, DeepseekV3Config, Qwen2MoeConfig

from support.models.families import FAMILIES, build_model, build_tokenizer, save
from support.servers.servers import tiny
from transparent_llm import errors
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5], [6, 7]]


def loaded(family: str) -> TransformerLensTransparentLlm:
    return TransformerLensTransparentLlm(family, hf_model=build_model(FAMILIES[family]()), tokenizer=build_tokenizer())


def test_the_bytes_of_a_run_are_those_of_its_tensors() -> None:
    llm = tiny().copy()
    llm.run_tokens(ROWS)
    batch, pos, d_model, heads, d_ffn = 2, 5, 64, 4, 256
    layer = 3 * d_model + d_model + d_ffn + heads * pos  # in, attention, feed-forward; values; neurons; pattern
    floats = batch * pos * (2 * layer + d_model)  # and the last residual stream, which gives the logits
    assert llm.values().nbytes == floats * 4 + batch * pos * (8 + 1)  # token ids and mask


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox_parallel", "bloom", "falcon", "phi3"])
def test_no_bridge_keeps_a_pattern_of_its_last_run(family: str) -> None:
    llm = loaded(family)
    llm.run_tokens(ROWS)
    for layer in llm._model.layers:
        assert getattr(layer._attn, "_pattern", None) is None


def test_a_model_that_was_handed_over_is_frozen_in_eval_mode_and_gives_the_same() -> None:
    model = build_model(FAMILIES["gpt2"]())
    wanted = model(torch.tensor([[1, 2, 3]])).logits
    model.train()
    model.requires_grad_(True)
    llm = TransformerLensTransparentLlm("mine", hf_model=model, tokenizer=build_tokenizer())
    llm.run_tokens([[1, 2, 3]])
    assert (llm.logits() - wanted).abs().max().item() <= 1e-5
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not llm.unembed(llm.residual_out(1)[0, 0], normalize=True).requires_grad


def test_results_can_be_edited_in_place_and_used_with_gradients() -> None:
    llm = tiny().copy()
    llm.run_tokens(ROWS)
    residual = llm.residual_out(0).requires_grad_()
    residual.pow(2).sum().backward()
    assert residual.grad is not None
    llm.attention_matrix(0, 0, 0).mul_(0)


def test_a_choice_for_padding_is_an_objects_own() -> None:
    model = build_model(FAMILIES["gpt2"]())
    llm = TransformerLensTransparentLlm("mine", hf_model=model, tokenizer=build_tokenizer(), padding="nan")
    llm.run_tokens(ROWS)
    assert llm.residual_out(0)[1, 2:].isnan().all()
    with llm.reading(padding="keep"):
        assert torch.isfinite(llm.residual_out(0)).all()
    with serve_in_process(llm) as client:  # what is served is chosen by who reads it
        client.run_tokens(ROWS)
        assert torch.isfinite(client.residual_out(0)).all()
    with pytest.raises(errors.InvalidRequestError, match=r"padding is .* got str 'zero'"):
        TransformerLensTransparentLlm("mine", padding="zero")  # type: ignore[arg-type]


def test_threads_with_copies_do_not_mix_their_runs() -> None:
    rows = [[[n + 1, n + 2, n + 3 + turn] for _ in range(n + 1)] for n in range(4) for turn in range(5)]
    wanted = []
    for batch in rows:
        llm = tiny().copy()
        llm.run_tokens(batch)
        wanted.append(llm.residual_out(1))
    wrong: list[int] = []

    def work(numbers: list[int]) -> None:
        llm = tiny().copy()
        for number in numbers * 3:
            llm.run_tokens(rows[number])
            if not torch.equal(llm.residual_out(1), wanted[number]):
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(list(range(start, len(rows), 4)),)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_the_digest_names_weights_configuration_and_tokenizer(tmp_path: Path) -> None:
    digests = [TransformerLensTransparentLlm(str(save("gpt2", tmp_path / name))).describe().digest for name in "ab"]
    assert digests[0] == digests[1]
    assert len(digests[0]) == 64
    changed = build_model(FAMILIES["gpt2"]())
    changed.transformer.h[0].mlp.c_fc.bias.data[0] += 1e-3
    other_weights = TransformerLensTransparentLlm("x", hf_model=changed, tokenizer=build_tokenizer())
    tokenizer = build_tokenizer()
    tokenizer.add_tokens(["<new>"])
    other_tokenizer = TransformerLensTransparentLlm("x", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=tokenizer)
    assert len({digests[0], other_weights.describe().digest, other_tokenizer.describe().digest}) == 3


def test_a_folder_is_called_by_its_own_name(tmp_path: Path) -> None:
    llm = TransformerLensTransparentLlm(str(save("gpt2", tmp_path / "my-gpt2")))
    assert llm.model_info().name == "my-gpt2"
    assert repr(llm) == "<TransformerLensTransparentLlm 'my-gpt2' on cpu: 2 layers, 4 heads, d_model 64; no run yet>"
    llm.run_tokens(ROWS)
    assert repr(llm).endswith("run of shape (2, 5)>")


def test_a_beginning_of_sequence_token_is_put_before_text_exactly_once() -> None:
    llm = tiny().copy()
    llm.run(["The river"])
    assert llm.describe().prepends_bos
    assert llm.tokens()[0, 0].item() == 0
    assert llm.tokens()[0, 1].item() != 0
    llm.run([""])
    assert llm.tokens().tolist() == [[0]]


def test_a_family_that_wants_no_beginning_token_gets_none() -> None:
    llm = loaded("qwen2")
    assert not llm.describe().prepends_bos
    llm.run(["The river"])
    assert llm.tokens()[0, 0].item() != 0
    with pytest.raises(errors.InvalidRequestError, match="sentence 1 has no token"):
        llm.run(["fine", ""])


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe", "gpt_oss"])
def test_neurons_of_experts_that_were_not_chosen_are_zero(family: str) -> None:
    llm = loaded(family)
    llm.run_tokens(ROWS)
    activations, contributions = llm.neuron_activations(0, 1, 3), llm.decomposed_ffn_out(0, 1, 3)
    by_expert = activations.reshape(4, -1).abs().sum(dim=1)
    assert (by_expert > 0).sum().item() == 2  # of four experts, two are chosen for each token
    silent = (activations == 0)[:, None] & (contributions != 0)
    assert not silent.any()


def test_a_shared_experts_neurons_follow_after_the_routed_ones() -> None:
    config = Qwen2MoeConfig(
        vocab_size=500,
        hidden_size=64,
        moe_intermediate_size=48,
        shared_expert_intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_tok=2,
        max_position_embeddings=64,
    )
    model = build_model(config)
    shared = model.model.layers[1].mlp.shared_expert.down_proj.weight.clone()
    routed = model.model.layers[1].mlp.experts.down_proj.clone()
    llm = TransformerLensTransparentLlm("shared", hf_model=model, tokenizer=build_tokenizer())
    llm.run_tokens(ROWS)
    assert llm.describe().d_ffn == (4 * 48 + 80, 4 * 48 + 80)
    assert len(llm.neuron_activations(0, 1, 2)) == 4 * 48 + 80
    assert torch.equal(llm.neuron_output(1, 4 * 48 + 7), shared[:, 7])
    assert torch.equal(llm.neuron_output(1, 2 * 48 + 5), routed[2, :, 5])
    summed = llm.decomposed_ffn_out(0, 1, 2).sum(dim=0)
    assert (summed - llm.ffn_out(1)[0, 2]).abs().max().item() <= 1e-5


@pytest.mark.parametrize(
    ("device", "text"),
    [
        ("tpu", "device 'tpu' is unknown; use cpu, cuda, cuda:INDEX, gpu or auto"),
        ("cuda:99", "device 'cuda:99' is not available: "),
    ],
)
def test_a_device_that_is_not_there(device: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(errors.InvalidRequestError) as caught:
        TransformerLensTransparentLlm(str(tmp_path), device=device)
    assert str(caught.value).startswith(text)


def test_a_description_survives_being_written_down() -> None:
    description = tiny().describe()
    assert dataclasses.replace(description) == description
    assert description.conventions["neuron_index"].startswith("dense: row of W_out")
    assert (description.n_ctx, description.d_ffn, description.device) == (64, (256, 256), "cpu")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma2", "mixtral"])
def test_a_narrow_model_equals_hugging_face_loaded_in_that_dtype(
    family: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    """Also far from the beginning, where rotary frequencies rounded to the dtype would be off."""
    folder, rows = save(family, tmp_path), [list(range(3, 63))]
    plain = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, attn_implementation="eager", trust_remote_code=False
    ).eval()
    if hasattr(plain, "set_experts_implementation"):
        plain.set_experts_implementation("eager")
    with torch.no_grad():
        wanted = plain(torch.tensor(rows)).logits.float()
    llm = TransformerLensTransparentLlm(str(folder), dtype=dtype)
    llm.run_tokens(rows)
    assert llm.logits().dtype == dtype
    relative = (llm.logits().float() - wanted).abs().max() / wanted.abs().max()
    assert relative.item() <= {torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for name, buffer in llm._model._hf.named_buffers():
        if name.endswith("inv_freq"):
            assert buffer.dtype == torch.float32


@pytest.mark.parametrize("length", [3, 4, 5])
def test_latent_attention_at_a_length_equal_to_the_number_of_heads(length: int) -> None:
    config = DeepseekV3Config(
        vocab_size=500,
        hidden_size=64,
        intermediate_size=96,
        moe_intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        n_routed_experts=4,
        n_shared_experts=1,
        num_experts_per_tok=2,
        n_group=1,
        topk_group=1,
        first_k_dense_replace=1,
        kv_lora_rank=32,
        q_lora_rank=32,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=16,
        max_position_embeddings=64,
    )
    llm = TransformerLensTransparentLlm("deepseek", hf_model=build_model(config), tokenizer=build_tokenizer())
    llm.run_tokens([list(range(1, length + 1))])
    parts = llm.decomposed_attn(0, 1).sum(dim=(1, 2))
    whole = llm.residual_after_attn(1)[0] - llm.residual_in(1)[0]
    assert (parts - whole).abs().max().item() <= 1e-5
