"""Analyses by gradients: of what the object gives, beside sweeps, and beside TransformerLens' attribution patching."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.tools.analysis import attribution_patching as theirs

from support.servers.servers import tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.differentiation import DIRECT
from transparent_llm.analysis.gradients import (
    attribution_patching,
    gradient,
    gradient_x_activation,
    input_x_gradient,
    integrated_gradients,
    occlusion,
    saliency,
)
from transparent_llm.analysis.metrics import Metric, projection
from transparent_llm.analysis.sweeps import ablation_sweep, patch_sweep
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import freeze, head, neurons, pattern, residual_in, residual_out, scale, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

METRIC = Metric(" king", " queen")
EDITS = (scale(head(0, 1), -1.0), freeze(pattern(1)))


def ran(llm: Any, *rows: list[int]) -> Any:
    twin = llm.copy()
    twin.run_tokens(list(rows))
    return twin


def test_nodes_have_the_scores_of_transformer_lens(
    demo: TransformerLensTransparentLlm, rows: list[list[int]], remote: RemoteTransparentLlm
) -> None:
    bridge = TransformerBridge.boot_transformers(
        str(DEMO_MODEL), device="cpu", dtype=torch.float32, trust_remote_code=False
    )
    bridge.eval()
    king, queen = demo.to_single_token(" king"), demo.to_single_token(" queen")
    clean, corrupt = (torch.tensor([row]) for row in rows)
    wanted = theirs.attribution_patch(bridge, clean, corrupt, lambda logits: logits[0, -1, king] - logits[0, -1, queen])
    n_layers, n_heads = demo.model_info().n_layers, demo.model_info().n_heads
    for llm in (demo, remote):
        pair = ran(llm, rows[0]), ran(llm, rows[1])
        heads, ffn = (attribution_patching(*pair, places, METRIC)["value"] for places in ("head", "ffn_out"))
        got = {(None, "ffn", layer): 0.0 for layer in range(n_layers)}
        for node, score in wanted.node_scores.items():
            if node.kind == "mlp_out":
                assert float(ffn[node.layer, node.position]) == pytest.approx(score, abs=1e-5)
                got[None, "ffn", node.layer] += score
        for layer in range(n_layers):
            for number in range(n_heads):
                scores = [
                    score
                    for node, score in wanted.node_scores.items()
                    if (node.kind, node.layer, node.head) == ("attn_head_out", layer, number)
                ]
                assert len(scores) == len(rows[0])
                assert float(heads[layer, number]) == pytest.approx(sum(scores), abs=1e-5)
        assert all(got.values())


def test_attribution_patching_is_exact_where_the_metric_is_linear_and_near_patching_elsewhere(
    demo: TransformerLensTransparentLlm, rows: list[list[int]]
) -> None:
    clean, corrupt = ran(demo, rows[0]), ran(demo, rows[1])
    last = demo.model_info().n_layers - 1
    linear = projection(residual_out(-1), torch.linspace(-1, 1, demo.model_info().d_model))
    found = attribution_patching(clean, corrupt, "ffn_out", linear, layer=last, verify=True)
    assert torch.allclose(found["value"].double(), found["patched"], atol=1e-5)
    assert found["value"].abs().max() > 0.01
    for places, least in (("head", 0.8), ("ffn_out", 0.8), ("attn_out", 0.8)):
        found = attribution_patching(clean, corrupt, places, METRIC, verify=True)  # type: ignore[arg-type]
        swept = patch_sweep(clean, corrupt, places, METRIC)  # type: ignore[arg-type]
        base = corrupt.logits()[0, -1]
        before = base[demo.to_single_token(" king")] - base[demo.to_single_token(" queen")]
        assert torch.allclose(found["patched"], swept["value"] - before, atol=1e-4)
        correlation = float(torch.corrcoef(torch.stack([found["value"].double(), found["patched"]]).flatten(1))[0, 1])
        assert f"{correlation:.3f}" in found.title
        assert correlation > least, places
    found = attribution_patching(clean, corrupt, "neurons", METRIC, layer=1, units=[3, 5, 8], verify=True)
    assert found.axes[1].coordinates == (3, 5, 8)
    assert found["value"].shape == found["patched"].shape == (1, 3)
    with pytest.raises(InvalidRequestError, match="of one layer"):
        attribution_patching(clean, corrupt, "neurons", METRIC)
    with pytest.raises(InvalidRequestError, match="they must have as many"):
        attribution_patching(clean, ran(demo, rows[1][:-1]), "head", METRIC)


def test_each_analysis_is_of_one_row_and_says_what_its_axes_are(
    demo: TransformerLensTransparentLlm, rows: list[list[int]], remote: RemoteTransparentLlm
) -> None:
    given = [rows[0], rows[1][:4]]
    here, there = ran(demo, *given), ran(remote, *given)
    alone = ran(demo, given[1])
    for made in (
        lambda llm, row: gradient(llm, pattern(1, 2), METRIC, batch_i=row),
        lambda llm, row: gradient(llm, neurons(0, [3, 4]), METRIC, batch_i=row, frozen=DIRECT),
        lambda llm, row: saliency(llm, METRIC, batch_i=row),
        lambda llm, row: input_x_gradient(llm, METRIC, batch_i=row),
        lambda llm, row: gradient_x_activation(llm, "head", METRIC, batch_i=row),
        lambda llm, row: gradient_x_activation(llm, "residual_after_attn", METRIC, batch_i=row, layer=-1),
        lambda llm, row: integrated_gradients(llm, METRIC, baseline=" the", steps=5, batch_i=row),
        lambda llm, row: integrated_gradients(llm, METRIC, baseline=4, steps=5, batch_i=row, site=head(1), edits=EDITS),
        lambda llm, row: gradient_x_activation(llm, "head", METRIC, batch_i=row, edits=EDITS),
        lambda llm, row: saliency(llm, METRIC, batch_i=row, edits=EDITS),
        lambda llm, row: occlusion(llm, METRIC, batch_i=row),
    ):
        found, same, of_one = made(here, 1), made(there, 1), made(alone, 0)
        assert list(found.tensors) == list(same.tensors)
        for name, tensor in found.tensors.items():
            assert torch.equal(tensor.tensor, same[name])
            assert torch.allclose(tensor.tensor, of_one[name], atol=1e-4)
        positions = [axis for axis in found.axes if axis.name in ("pos", "query_pos")]
        for axis in positions:
            assert list(axis.labels["token"]) == demo.tokens_to_strings(torch.tensor(given[1]))
        assert "less that of" in found.title or "logit without" in found.title
    sums = gradient_x_activation(here, "residual_in", METRIC, layer=0)["value"][0]
    assert torch.equal(sums, input_x_gradient(here, METRIC)["times_activation"])
    whole = gradient(here, residual_in(0), METRIC)["gradient"]
    assert torch.allclose(saliency(here, METRIC)["norm"], whole.norm(dim=1))


def test_occlusion_is_one_edited_run_a_position(demo: TransformerLensTransparentLlm, rows: list[list[int]]) -> None:
    llm = ran(demo, rows[0])
    found = occlusion(llm, METRIC)
    king, queen = demo.to_single_token(" king"), demo.to_single_token(" queen")
    for pos in (0, 3):
        alone = llm.copy()
        alone.run_tokens([rows[0]], edits=[zero(residual_in(0), positions=[pos])])
        logits = alone.logits()[0, -1]
        assert float(found["value"][pos]) == pytest.approx(float(logits[king] - logits[queen]), abs=1e-4)


def test_occlusion_is_of_positions_of_the_stream_or_a_branch() -> None:
    with pytest.raises(InvalidRequestError, match=r"site must be one of .* got 'head'"):
        occlusion(ran(tiny(), [1, 2, 3]), Metric(3), site="head")  # type: ignore[arg-type]  # that is what is refused


def test_tokens_of_metrics_and_baselines_can_be_numbers_of_numpy_and_torch() -> None:
    llm = ran(tiny(), [1, 2, 3], [4, 5, 6])
    wanted = saliency(llm, Metric(7, 8), batch_i=1)["norm"]
    arrays = [np.int64(7), torch.tensor(7)], [np.int64(8), torch.tensor(8)]
    for token, minus in zip(*arrays, strict=True):
        assert torch.equal(saliency(llm, Metric(token, minus), batch_i=1)["norm"], wanted)
    of_token = integrated_gradients(llm, Metric(7), baseline=9, steps=3)["value"]
    assert torch.equal(integrated_gradients(llm, Metric(7), baseline=np.int64(9), steps=3)["value"], of_token)
    for wrong in ({"token": 4.5}, {"token": [4.5]}, {"token": 7, "pos": 1.5}):
        with pytest.raises(InvalidRequestError, match="must be an integer"):
            Metric(**wrong)  # type: ignore[arg-type]  # that is what is refused


def test_of_a_list_with_a_token_for_each_row_of_the_run_one_row_has_its_own() -> None:
    llm = ran(tiny(), [1, 2, 3], [4, 5, 6])
    for row in (0, 1):
        wanted = saliency(llm, Metric(7 + row), batch_i=row)["norm"]
        assert torch.equal(saliency(llm, Metric([7, 8]), batch_i=row)["norm"], wanted)
        swept = ablation_sweep(llm, "head", Metric(torch.tensor([7, 8])), batch_i=row)["value"]
        assert torch.equal(swept, ablation_sweep(llm, "head", Metric(7 + row), batch_i=row)["value"])
    with pytest.raises(InvalidRequestError, match="token has 3 entries for one row of a run of 2"):
        saliency(llm, Metric([7, 8, 9]))


def test_patching_of_one_place_has_no_correlation() -> None:
    pair = ran(tiny(), [1, 2, 3]), ran(tiny(), [1, 2, 4])
    asked: dict[str, Any] = {"layer": 0, "units": [1], "verify": True}
    found = attribution_patching(*pair, "neurons", Metric(7), **asked)
    assert "correlation" not in found.title
    assert found["patched"].numel() == 1


def test_integrated_gradients_say_how_far_they_are_from_whole(
    demo: TransformerLensTransparentLlm, rows: list[list[int]]
) -> None:
    clean, corrupt = ran(demo, rows[0]), ran(demo, rows[1])
    found = integrated_gradients(clean, METRIC, baseline=corrupt)
    same = [pos for pos, (one, other) in enumerate(zip(*rows, strict=True)) if one == other]
    assert not found["value"][same].any()
    ends = [llm.logits()[0, -1] for llm in (clean, corrupt)]
    king, queen = demo.to_single_token(" king"), demo.to_single_token(" queen")
    span = (ends[0][king] - ends[0][queen]) - (ends[1][king] - ends[1][queen])
    assert float(found["value"].sum() - found["delta"]) == pytest.approx(float(span), abs=1e-4)
    assert abs(float(found["delta"])) <= 1e-2 * abs(float(span))


def test_an_object_without_gradients_is_told_so(demo: TransformerLensTransparentLlm, rows: list[list[int]]) -> None:
    class Other:
        def __getattr__(self, name: str) -> Any:
            return getattr(ran(demo, rows[0]), name)

    with pytest.raises(NotSupportedError, match="cannot be differentiated"):
        saliency(Other(), METRIC)  # type: ignore[arg-type]
