"""Rows of a growing contribution graph: those of the whole one, and of plain Hugging Face by hand in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from support.models.contributions import contributions
from support.models.given import ContractOnly
from support.servers.servers import Watcher, running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis.generation_comparison import compare_generations
from transparent_llm.analysis.growing_graph import GraphRow, growing_graph
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.interventions import head, zero
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL
from transparent_llm_server.rpc import server_info

PROMPT, N, THRESHOLD = "My lord, the king", 6, 0.04


def require_rows_of(whole: Any, rows: list[GraphRow], error: float = 0.0) -> None:
    """Of a graph, at as many positions as there are rows, up to its last."""
    n = len(whole.tokens)
    assert [row.pos for row in rows] == list(range(n - len(rows), n))
    for row in rows:
        assert row.tokens == whole.tokens[: row.pos + 1]
        assert (row.attention - whole.attention[:, row.pos, : row.pos + 1]).abs().max() <= error
        assert not whole.attention[:, row.pos, row.pos + 1 :].any()
        for name in ("attention_residual", "ffn", "ffn_residual"):
            assert (getattr(row, name) - getattr(whole, name)[:, row.pos]).abs().max() <= error, name
        if not error:
            assert row.edges() == [edge for edge in whole.edges() if edge.target_pos == row.pos]


@torch.no_grad()
def by_hand(tokens: list[int], pos: int) -> list[torch.Tensor]:
    """Attention [layer source], its residual, feed-forward and past it [layer], from modules of Hugging Face."""
    loaded = AutoModelForCausalLM.from_pretrained(DEMO_MODEL, trust_remote_code=False, attn_implementation="eager")
    model, seen = loaded.eval().double(), dict[str, Any]()
    for name, module in model.transformer.named_modules():
        module.register_forward_hook(lambda _, given, gives, name=name: seen.update({name: (given, gives)}))
    patterns = model(torch.tensor([tokens]), output_attentions=True, use_cache=False).attentions
    found: list[list[torch.Tensor]] = [[], [], [], []]
    for layer, block in enumerate(model.transformer.h):
        name = f"h.{layer}"
        entering, attended, added = seen[name][0][0][0], seen[f"{name}.attn"][1][0][0], seen[f"{name}.mlp"][1][0]
        values = seen[f"{name}.attn.c_attn"][1][0].split(128, dim=-1)[2].reshape(len(tokens), 4, 32)
        offered = torch.einsum("shd,hdm->shm", values, block.attn.c_proj.weight.reshape(4, 32, 128))
        parts = patterns[layer][0, :, pos].T[:, :, None] * offered  # [source head d_model]
        middle = entering[pos] + attended[pos]
        shares = contributions(torch.cat([parts.flatten(0, 1), entering[pos][None]])[None], middle[None], 1.0)[0]
        shares = torch.where(shares > THRESHOLD, shares, 0.0)
        shares /= shares.sum()
        after = contributions(torch.stack([added[pos], middle])[None], (middle + added[pos])[None], 1.0)[0]
        after = torch.where(after > THRESHOLD, after, 0.0)
        after /= after.sum()
        of_heads = shares[:-1].reshape(parts.shape[:2]).sum(1)
        for part, value in zip(found, (of_heads, shares[-1], after[0], after[1]), strict=True):
            part.append(value)
    return [torch.stack(part) for part in found]


@pytest.mark.parametrize("llm", ["demo", "remote"])
def test_rows_are_those_of_the_whole_graph_and_by_hand_of_hugging_face(
    llm: str, request: pytest.FixtureRequest
) -> None:
    asked = request.getfixturevalue(llm).copy()
    rows = list(growing_graph(asked, PROMPT, N))
    assert len(rows) == N
    require_rows_of(asked.contribution_graph(), rows)  # whose run is current now
    tokens = asked.tokens()[0].tolist()
    assert [row.chosen.token_id for row in rows[:-1]] == tokens[rows[0].pos + 1 :]
    for row in (rows[0], rows[-1]):
        attention, residual, ffn, past = by_hand(tokens, row.pos)
        assert (row.attention - attention[:, : row.pos + 1]).abs().max() <= 1e-4
        for part, wanted in ((row.attention_residual, residual), (row.ffn, ffn), (row.ffn_residual, past)):
            assert (part - wanted).abs().max() <= 1e-4
    assert f"which chose {rows[-1].chosen.text!r}" in str(rows[-1])
    assert len(str(rows[-1]).splitlines()) == 2 + asked.model_info().n_layers


@pytest.mark.parametrize("family", ["gemma2", "mixtral"])
def test_with_edits_without_renormalizing_and_over_sliding_windows(family: str) -> None:
    llm, edits = tiny(family).copy(), [zero(head(0, 1))]
    rows = list(growing_graph(llm, "a b c d e f", 9, edits=edits, renormalize=False, norm="l2"))
    whole = llm.contribution_graph(renormalize=False, norm="l2")
    assert llm.effects()[0].changed
    for row in rows:
        assert (row.attention - whole.attention[:, row.pos, : row.pos + 1]).abs().max() <= 1e-6
        assert [edge[:2] for edge in row.edges()] == [edge[:2] for edge in whole.edges() if edge.target_pos == row.pos]


@pytest.mark.parametrize("llm", ["demo", "remote"])
def test_a_live_row_comes_with_its_token(llm: str, request: pytest.FixtureRequest) -> None:
    asked = request.getfixturevalue(llm).copy()
    asked.run(["the run before"])
    before = asked.tokens()
    with asked.edits(zero(head(0, 1))):
        coming = growing_graph(asked, PROMPT, N, live=True, edits=[zero(head(1, 2))], temperature=0.8, seed=3)
    rows = [next(coming)]
    assert torch.equal(asked.tokens(), before)  # the text is not whole yet
    rows += coming
    assert len(rows) == N
    assert asked.tokens()[0, rows[0].pos + 1 :].tolist() == [row.chosen.token_id for row in rows[:-1]]
    assert [effect.changed > 0 for effect in asked.effects()] == [True, True]  # of the block, and its own
    require_rows_of(asked.contribution_graph(), rows, error=1e-5)


def test_rows_of_a_text_take_one_call_behind_its_generation(demo: TransformerLensTransparentLlm) -> None:
    watcher = Watcher()
    with running(watcher, serving={"demo": demo}) as server, RemoteTransparentLlm(server.address) as llm:
        llm.server_info()
        watcher.calls.clear()
        rows = list(growing_graph(llm, PROMPT, N))
        assert len(rows) == N
        assert watcher.names == ["Generate", "Run", "ModelInfo", "Fetch", "TokensToStrings"]
        require_rows_of(llm.contribution_graph(), rows)


def test_an_older_server_is_told_of_before_anything_is_generated(
    demo: TransformerLensTransparentLlm, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, watcher = {"contribution_edges_to", "compare_positions"}, Watcher()
    monkeypatch.setattr(server_info, "FEATURES", tuple(each for each in server_info.FEATURES if each not in new))
    with running(watcher, serving={"demo": demo}) as server, RemoteTransparentLlm(server.address) as llm:
        with pytest.raises(NotSupportedError, match="knows no contribution_edges_to"):
            growing_graph(llm, PROMPT, N)
        with pytest.raises(NotSupportedError, match="knows no compare_positions"):
            compare_generations(llm, PROMPT, [zero(head(0, 1))], N)
        assert set(watcher.names) == {"ServerInfo"}


def test_what_has_no_growing_graph_is_refused(demo: TransformerLensTransparentLlm) -> None:
    with pytest.raises(InvalidRequestError, match="a graph is of one text"):
        growing_graph(demo, ["a", "b"])  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="live rows are of a prompt"):
        growing_graph(demo, None, live=True, messages=[{"role": "user", "content": "a"}])
    with pytest.raises(InvalidRequestError, match=r"threshold must be a number from 0 to 1, got 1.5"):
        growing_graph(demo, PROMPT, threshold=1.5)
    with pytest.raises(NotSupportedError, match="cannot go on with texts"):
        growing_graph(ContractOnly(demo), PROMPT)
