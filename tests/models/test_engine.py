"""Which engine runs a model: taps on the plain one where they show what TransformerLens' bridge shows."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import linear
from transformers.models.llama.modeling_llama import LlamaAttention, apply_rotary_pos_emb, eager_attention_forward

from support.models.families import FAMILIES, build_model, build_tokenizer, save
from support.servers.servers import tiny
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]


class Withdrawn(LlamaAttention):
    """The same attention, which does not call the module that its values are projected with."""

    def forward(  # type: ignore[override]
        self, hidden_states: torch.Tensor, position_embeddings: Any, attention_mask: torch.Tensor, **_: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        q, k = (each(hidden_states).view(shape).transpose(1, 2) for each in (self.q_proj, self.k_proj))
        v = linear(hidden_states, self.v_proj.weight).view(shape).transpose(1, 2)
        q, k = apply_rotary_pos_emb(q, k, *position_embeddings)
        z, weights = eager_attention_forward(self, q, k, v, attention_mask, scaling=self.scaling)
        return self.o_proj(z.reshape(*hidden_states.shape[:-1], -1)), weights


def loaded(model: Any) -> TransformerLensTransparentLlm:
    llm = TransformerLensTransparentLlm("here", hf_model=model, tokenizer=build_tokenizer())
    llm.run_tokens(ROWS)
    return llm


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_runs_on_taps(family: str) -> None:
    assert tiny(family).describe().engine == "taps"


def test_a_model_that_hides_something_runs_through_the_bridge_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    model = build_model(FAMILIES["llama_gqa"]())
    for layer in model.model.layers:
        layer.self_attn.__class__ = Withdrawn
    llm, plain = loaded(model), tiny("llama_gqa").copy()
    plain.run_tokens(ROWS)
    assert llm.describe().engine == "bridge"
    assert "own modules do not show value of layer 0, value of layer 1" in caplog.text
    for got, wanted in (
        (llm.logits(), plain.logits()),
        (llm.decomposed_attn(0, 1), plain.decomposed_attn(0, 1)),
        (llm.ffn_out(1), plain.ffn_out(1)),
        (llm.attention_matrix(1, 0, 3), plain.attention_matrix(1, 0, 3)),
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox_parallel", "bloom", "opt"])
def test_the_model_stays_the_plain_one(family: str) -> None:
    model, untouched = (build_model(FAMILIES[family]()) for _ in range(2))
    loaded(model)
    assert [type(module) for module in model.modules()] == [type(module) for module in untouched.modules()]
    assert [name for name, _ in model.named_parameters()] == [name for name, _ in untouched.named_parameters()]
    tokens = torch.tensor(ROWS[:1])
    assert torch.equal(model(tokens).logits, untouched(tokens).logits)


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox_parallel", "bloom", "phi3"])  # fused queries, keys and values
def test_no_weight_is_held_twice(family: str) -> None:
    model = build_model(FAMILIES[family]())
    bridge: Any = loaded(model).bridged._bridge
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    assert {each.untyped_storage().data_ptr() for each in (*bridge.parameters(), *bridge.buffers())} <= own


def test_a_pass_of_somebody_else_leaves_nothing_in_a_run(tmp_path: Path) -> None:
    """The process that has the model may call it at any time."""
    llm, inside, done = TransformerLensTransparentLlm(str(save("gpt2", tmp_path))), threading.Event(), threading.Event()
    model: Any = llm.bridged._hf
    llm.run_tokens(ROWS)
    wanted = [llm.residual_out(1), llm.attention_matrix(0, 1, 2)]

    def run_beside(module: torch.nn.Module, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            inside.set()
            assert done.wait(30)

    def call() -> None:
        assert inside.wait(30)
        model(torch.tensor([[30, 31, 32, 33, 34, 35, 36], [40, 41, 42, 43, 44, 45, 46]]))
        done.set()

    hook = model.transformer.h[1].register_forward_pre_hook(run_beside)
    beside = threading.Thread(target=call)
    beside.start()
    llm.run_tokens(ROWS)
    beside.join()
    hook.remove()
    assert all(map(torch.equal, (llm.residual_out(1), llm.attention_matrix(0, 1, 2)), wanted))
