"""The demo model's analyses beside those of TransformerLens, wherever the two mean the same."""

from __future__ import annotations

import pytest
import torch
from transformer_lens.head_detector import detect_head
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import direct_logit_attribution, logit_lens, logit_readout

from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

SENTENCE = "What say you, gentle friend? What say you, gentle friend?"
NAMED = (3, 411)
NEAR = {"rtol": 1e-5, "atol": 1e-4}


def booted() -> TransformerBridge:
    return TransformerBridge.boot_transformers(str(DEMO_MODEL), device="cpu", trust_remote_code=False)


@pytest.fixture(scope="module")
def bridge() -> TransformerBridge:
    """With the weights as they are."""
    return booted()


@pytest.fixture(scope="module")
def llm() -> TransformerLensTransparentLlm:
    found = TransformerLensTransparentLlm(str(DEMO_MODEL))
    found.run([SENTENCE])
    return found


def test_the_lens_reads_the_same_at_every_place(llm: TransformerLensTransparentLlm, bridge: TransformerBridge) -> None:
    ours = llm.logit_lens(k=5, token_ids=NAMED, mid=True)
    best = logit_lens(bridge, llm.tokens(), incl_mid=True, positions=None, top_k=5)
    assert len(best.labels) == len(ours.places) == 9
    assert torch.equal(ours.ids, best.readout.top_ids[:, 0])
    torch.testing.assert_close(ours.logits, best.values[:, 0], **NEAR)
    torch.testing.assert_close(ours.entropy, best.readout.entropy[:, 0], **NEAR)
    named = logit_lens(
        bridge, llm.tokens(), incl_mid=True, positions=None, targets=list(NAMED), return_type="log_probs"
    )
    torch.testing.assert_close(ours.token_logprobs, named.values[:, 0], **NEAR)
    assert torch.equal(ours.token_ranks, named.readout.target_ranks[:, 0])
    assert len(set(ours.token_ranks.flatten().tolist())) > 50, "ranks that differ, or the comparison says little"


@pytest.mark.parametrize("normalize", [False, True])
def test_a_vector_speaks_for_the_same_tokens(
    llm: TransformerLensTransparentLlm, bridge: TransformerBridge, normalize: bool
) -> None:
    vector = llm.neuron_output(2, 7)
    ours = llm.top_tokens_of(vector, k=10, normalize=normalize)
    theirs = logit_readout(bridge, vector, apply_ln=normalize, top_k=10)
    assert torch.equal(ours.ids, theirs.top_ids)
    torch.testing.assert_close(ours.logits, theirs.values, **NEAR)


@pytest.mark.parametrize(
    ("kind", "name"), [("previous", "previous_token"), ("duplicate", "duplicate_token"), ("induction", "induction")]
)
def test_heads_score_the_same_but_for_tokens_without_such_a_key(
    llm: TransformerLensTransparentLlm, bridge: TransformerBridge, kind: str, name: str
) -> None:
    """There a mean is of all tokens, here of those that have a key of the kind."""
    tokens = llm.tokens()[0].tolist()
    repeated = sum(1 for pos, token in enumerate(tokens) if token in tokens[:pos])
    n_queries = len(tokens) - 1 if kind == "previous" else repeated
    theirs = detect_head(bridge, SENTENCE, f"{name}_head")
    torch.testing.assert_close(llm.head_scores(kind).scores * n_queries / len(tokens), theirs, **NEAR)


def test_components_add_the_same_to_a_difference_of_logits(llm: TransformerLensTransparentLlm) -> None:
    """Of two tokens: there each logit is less the mean of all. Heads alone differ by constants that are folded into
    attention's bias there: see test_attribution.py."""
    folded = booted()
    folded.enable_compatibility_mode()
    found = direct_logit_attribution(folded, llm.tokens(), *NAMED)
    theirs = dict(zip(found.labels, found.attribution.detach().flatten(), strict=True))
    ours = llm.attribution(*NAMED)
    for layer, attention in enumerate(ours["heads"].sum(dim=1) + ours["attn_bias"]):
        torch.testing.assert_close(attention, theirs.pop(f"{layer}_attn_out"), **NEAR)
        torch.testing.assert_close(ours["ffn"][layer], theirs.pop(f"{layer}_mlp_out"), **NEAR)
    torch.testing.assert_close(ours["embedding"], theirs.pop("embed") + theirs.pop("pos_embed"), **NEAR)
    assert theirs == {}
