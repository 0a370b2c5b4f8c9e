"""Sweeps beside TransformerLens' own patching, one run a cell, and what is known of the demo model's heads."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformer_lens import patching
from transformer_lens.model_bridge import TransformerBridge

from support.servers.servers import tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.sweeps import Metric, ablation_sweep, patch_sweep
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import head, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

TOLERANCE = 1e-4
METRIC = Metric(" king", " queen")


def ran(llm: Any, row: list[int]) -> Any:
    twin = llm.copy()
    twin.run_tokens([row])
    return twin


@pytest.mark.parametrize(
    ("places", "theirs"),
    [
        ("residual_in", "get_act_patch_resid_pre"),
        ("attn_out", "get_act_patch_attn_out"),
        ("ffn_out", "get_act_patch_mlp_out"),
        ("head", "get_act_patch_attn_head_out_all_pos"),
        ("pattern", "get_act_patch_attn_head_pattern_all_pos"),
        ("query", "get_act_patch_attn_head_q_all_pos"),
        ("key", "get_act_patch_attn_head_k_all_pos"),
        ("value", "get_act_patch_attn_head_v_all_pos"),
    ],
)
def test_patching_gives_the_grids_of_transformer_lens(
    places: Any, theirs: str, demo: TransformerLensTransparentLlm, rows: list[list[int]], remote: RemoteTransparentLlm
) -> None:
    bridge = TransformerBridge.boot_transformers(
        str(DEMO_MODEL), device="cpu", dtype=torch.float32, trust_remote_code=False
    )
    king, queen = demo.to_single_token(" king"), demo.to_single_token(" queen")
    with torch.no_grad():
        _, cache = bridge.run_with_cache(torch.tensor([rows[0]]))
        wanted = getattr(patching, theirs)(
            bridge, torch.tensor([rows[1]]), cache, lambda logits: logits[0, -1, king] - logits[0, -1, queen]
        )
    for llm in (demo, remote):
        found = patch_sweep(ran(llm, rows[0]), ran(llm, rows[1]), places, METRIC)
        assert (found["value"] - wanted).abs().max().item() <= TOLERANCE
    clean, corrupt = (ran(demo, row).logits()[0, -1] for row in rows)
    span = (clean[king] - clean[queen]) - (corrupt[king] - corrupt[queen])
    score = (wanted - (corrupt[king] - corrupt[queen])) / span
    assert (found["score"] - score).abs().max().item() <= TOLERANCE * (1 + 1 / abs(span.item()))


@pytest.mark.parametrize("measure", ["logit", "logprob", "prob"])
def test_each_cell_is_what_a_run_of_its_own_gives(
    measure: Any, demo: TransformerLensTransparentLlm, rows: list[list[int]], remote: RemoteTransparentLlm
) -> None:
    metric, token, at = Metric(" king", pos=3, measure=measure), demo.to_single_token(" king"), 3

    def measured(llm: Any) -> float:
        logits = llm.logits()[0, at]
        scores = {"logit": logits, "logprob": logits.log_softmax(0), "prob": logits.softmax(0)}
        return float(scores[measure][token])

    base = ran(demo, rows[0])
    seen: list[tuple[int, int | None]] = []
    for llm in (demo, remote):
        found = ablation_sweep(ran(llm, rows[0]), "head", metric, progress=lambda n, of: seen.append((n, of)))
        for layer, number in ((0, 0), (1, 2), (3, 3)):
            alone = demo.copy()
            alone.run_tokens([rows[0]], edits=[zero(head(layer, number))])
            assert abs(float(found["value"][layer, number]) - measured(alone)) <= TOLERANCE
        assert torch.equal(found["change"], found["value"] - (found["value"] - found["change"]))
        assert abs(float((found["value"] - found["change"])[0, 0]) - measured(base)) <= TOLERANCE
        assert seen[-1] == (found["value"].numel(), found["value"].numel())


def test_the_previous_token_head_is_what_the_induction_head_hangs_on(demo: TransformerLensTransparentLlm) -> None:
    """Layer 0 head 0 was trained to attend to the token before; layer 1 head 0 composes with it."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randint(10, 900, (16,), generator=generator).tolist()
    llm = demo.copy()
    llm.run_tokens([half + half])
    whole = float(llm.head_scores("induction")["induction"][1, 0])
    assert whole > 0.5
    left = []
    for number in range(demo.model_info().n_heads):
        llm.run_tokens([half + half], edits=[zero(head(0, number))])
        left.append(float(llm.head_scores("induction")["induction"][1, 0]))
    assert left[0] < 0.3 * whole
    assert min(left[1:]) > 0.7 * whole


def test_a_sweep_leaves_its_callers_runs_as_they_are(remote: RemoteTransparentLlm, rows: list[list[int]]) -> None:
    clean, corrupt = ran(remote, rows[0]), ran(remote, rows[1])
    before = clean.run_id(), corrupt.run_id()
    found = patch_sweep(clean, corrupt, "residual_out", METRIC)
    assert (clean.run_id(), corrupt.run_id()) == before
    assert not corrupt.effects()
    assert [axis.name for axis in found.axes] == ["layer", "pos"]
    assert "residual_out of the clean row (clean" in found.title
    assert "<svg" in found.picture() or "<table" in found.picture()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"places": "everything"}, 'places must be one of "residual_in"'),
        ({"places": "neurons"}, "give both"),
        ({"units": []}, "units is empty"),
        ({"row": [1, 2]}, "the clean row has 3 tokens, the corrupt one 2"),
    ],
)
def test_what_cannot_be_swept_is_refused(options: dict[str, Any], words: str) -> None:
    clean, corrupt = ran(tiny(), [1, 2, 3]), ran(tiny(), options.get("row", [4, 5, 6]))
    with pytest.raises(InvalidRequestError, match=words):
        patch_sweep(clean, corrupt, options.get("places", "head"), Metric(3), units=options.get("units"))
