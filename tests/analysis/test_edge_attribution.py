"""Edges of the demo model: on the local and the remote object, and beside path patching."""

from __future__ import annotations

import pytest
import torch

from analysis.test_gradients import METRIC, ran
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.edge_attribution import edge_attribution
from transparent_llm.analysis.gradients import attribution_patching
from transparent_llm.analysis.paths import path_patch
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import Site, query, residual_out, value
from transparent_llm_server import TransformerLensTransparentLlm


def test_edges_estimate_what_path_patching_measures(
    demo: TransformerLensTransparentLlm, rows: list[list[int]], remote: RemoteTransparentLlm
) -> None:
    source, base = ran(demo, rows[1]), ran(demo, rows[0])
    found = edge_attribution(source, base, METRIC)
    there = edge_attribution(ran(remote, rows[1]), ran(remote, rows[0]), METRIC)
    assert torch.equal(found["value"], there["value"])
    assert found.title == there.title
    senders, receivers = (list(axis.coordinates) for axis in found.axes)
    n_layers, n_heads = demo.model_info().n_layers, demo.model_info().n_heads
    heads = [senders.index(f"head({layer}, {n})") for layer in range(n_layers) for n in range(n_heads)]
    king, queen = demo.to_single_token(" king"), demo.to_single_token(" queen")
    logits = base.logits()[0, -1].double()
    before = float(logits[king] - logits[queen])
    chosen: list[tuple[Site, str]] = [(residual_out(-1), "logits")]
    chosen += [(query(2, 1), "query(2, 1)"), (value(3, 0), "value(3, 0)")]
    for site, name in chosen:
        patched = path_patch(source, base, site, METRIC, freeze_ffn=True)["value"].double().flatten() - before
        estimated = found["value"][heads, receivers.index(name)].double()[: len(patched)]
        correlation = float(torch.corrcoef(torch.stack([estimated, patched]))[0, 1])
        assert correlation >= 0.99, (name, correlation)
    nodes = attribution_patching(source, base, "head", METRIC)["value"].flatten()
    assert torch.allclose(found["value"][heads].sum(1), nodes, atol=1e-4)
    top = found.top_edges(5)
    assert [abs(score) for *_, score in top] == sorted(found["value"].abs().flatten().tolist(), reverse=True)[:5]
    assert float(found["value"][senders.index(top[0][0]), receivers.index(top[0][1])]) == top[0][2]
    along = edge_attribution(source, base, METRIC, steps=4)
    assert not torch.allclose(along["value"], found["value"], atol=1e-3)
    with pytest.raises(InvalidRequestError, match="must have as many"):
        edge_attribution(ran(demo, rows[1][:-1]), base, METRIC)
