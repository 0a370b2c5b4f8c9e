"""Results show themselves: what a terminal, a notebook, a page and a table have of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.batch import LENGTHS
from transparent_llm.analysis.contribution_graph import ContributionGraph
from transparent_llm_server import TransformerLensTransparentLlm

ROW, N = 1, LENGTHS[1]
MADE: dict[str, tuple[Any, ...]] = {
    "logit_lens": (),
    "token_logprobs": (),
    "contribution_graph": (),
    "attribution": (3, 8),
    "source_attribution": (1, 3),
    "attention_matrices": (1,),
    "attn_contributions": (1,),
    "value_weighted_norms": (1,),
    "head_scores": (),
}


def made(llm: TransformerLensTransparentLlm, name: str) -> Any:
    return getattr(llm, name)(*MADE[name], batch_i=ROW)


def numbers(html: str, of: str = "data-value") -> list[float]:
    return [float(value) for value in re.findall(f'{of}="([^"]*)"', html)]


@pytest.mark.parametrize("name", MADE)
def test_every_result_is_shown_and_saved(gpt2: TransformerLensTransparentLlm, name: str, tmp_path: Path) -> None:
    found = made(gpt2, name)
    assert len(repr(found)) <= 330
    assert "\n" not in repr(found)
    assert str(found).count("\n") >= 2
    picture = found._repr_html_()
    assert "<script" not in picture
    page = found.save_html(tmp_path / "x.html").read_text("utf-8")
    assert page.startswith("<!DOCTYPE html>")
    assert picture in page


@pytest.mark.parametrize("name", MADE)
def test_every_result_becomes_a_data_set(gpt2: TransformerLensTransparentLlm, name: str) -> None:
    pytest.importorskip("xarray")
    found = made(gpt2, name)
    labelled = found.labelled() if hasattr(found, "labelled") else found
    dataset = found.to_xarray()
    assert set(dataset.data_vars) == set(labelled.tensors)
    for key, one in labelled.tensors.items():
        assert dataset[key].dims == one.axes
        assert torch.equal(torch.from_numpy(dataset[key].to_numpy()).nan_to_num(9), one.tensor.nan_to_num(9))


def test_the_lens_as_a_table_of_its_places(gpt2: TransformerLensTransparentLlm) -> None:
    pytest.importorskip("pandas")
    lens = gpt2.logit_lens(ROW, k=2, token_ids=[3])
    frame = lens.to_pandas("probs", "ids", "entropy")
    assert len(frame) == lens.ids.numel()
    line = frame[(frame.place == "out 1") & (frame.pos == N - 1) & (frame["rank"] == 1)].iloc[0]
    assert (line.ids, line.probs, line.text) == (
        int(lens.ids[-1, -1, 1]),
        float(lens.probs[-1, -1, 1]),
        lens.tokens[-1],
    )
    named = lens.to_pandas("token_logprobs")
    assert named.token_logprobs.tolist() == lens.token_logprobs.flatten().tolist()
    assert set(named.token) == {3}


def test_the_picture_of_the_lens_has_its_best_tokens(gpt2: TransformerLensTransparentLlm) -> None:
    lens = gpt2.logit_lens(ROW)
    picture = lens._repr_html_()
    assert numbers(picture) == lens.probs[..., 0].flip(0).double().flatten().tolist(), "the last place is at the top"
    assert picture.index("out 1") < picture.index("in 0")


def test_a_terminal_has_the_last_positions(gpt2: TransformerLensTransparentLlm) -> None:
    text = str(gpt2.logit_lens(0))
    assert text.startswith(f"logit lens, row 0, the last 8 of {LENGTHS[0]} positions\n")
    lines = text.splitlines()
    assert [line.split()[:2] for line in lines[2:]] == [["out", "1"], ["out", "0"], ["in", "0"]]
    lens = gpt2.logit_lens(0)
    assert lines[2].rstrip().endswith(f"{float(lens.probs[-1, -1, 0]):.2f}")
    assert str(gpt2.logit_lens(ROW)).startswith("logit lens, row 1\n")
    assert gpt2.logit_lens(ROW, k=0)._repr_html_()


def test_the_picture_of_the_graph_has_the_edges_that_count(gpt2: TransformerLensTransparentLlm) -> None:
    whole = gpt2.contribution_graph(ROW, threshold=0.02)
    for graph in (whole, whole.paths()):
        wanted = [edge.weight for edge in graph.edges()]
        assert wanted
        assert sorted(numbers(graph._repr_html_(), "data-weight")) == sorted(wanted)
    assert repr(whole).startswith("<ContributionGraph of 2 layers")


def test_the_picture_of_a_difference_says_what_is_less(gpt2: TransformerLensTransparentLlm) -> None:
    llm = gpt2.copy()
    llm.run_tokens([[5, 6, 7, 8], [5, 6, 9, 8]])
    one, other = (llm.contribution_graph(row, threshold=0.0) for row in range(2))
    difference = one.diff(other)
    weights = [edge.weight for edge in difference.edges()]
    assert min(weights) < 0 < max(weights)
    picture = difference._repr_html_()
    assert sorted(numbers(picture, "data-weight")) == sorted(map(abs, weights))
    assert ", less " in picture


def test_nodes_of_a_layer_stand_above_each_other(gpt2: TransformerLensTransparentLlm) -> None:
    """The way past the feed-forward part is not drawn over it."""
    graph = gpt2.contribution_graph(ROW, threshold=0.0)
    assert isinstance(graph, ContributionGraph)
    lines = re.findall(
        r'<line x1="([^"]*)" y1="([^"]*)" x2="([^"]*)" y2="([^"]*)".*?<title>([^<]*)</title>', graph._repr_html_()
    )
    straight = [line for line in lines if line[4].startswith("ffn_residual")]
    around = [line for line in lines if line[4].startswith("ffn ")]
    assert all(x1 == x2 and float(y2) < float(y1) for x1, y1, x2, y2, _ in straight)
    assert all(x1 != x2 and float(y2) < float(y1) for x1, y1, x2, y2, _ in around)


def test_attention_shows_all_heads(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.attention_matrices(1, ROW)
    picture = found._repr_html_()
    wanted = [value for value in found["attention"].double().flatten().tolist() if value]
    assert numbers(picture) == wanted
    assert picture.count("data-head=") == 4


def test_contributions_show_targets_down_and_sources_across(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.attn_contributions(1, ROW)
    picture = found._repr_html_()
    wanted = [value for value in found["heads"].permute(2, 0, 1).double().flatten().tolist() if value]
    assert numbers(picture) == wanted


def test_the_picture_of_an_attribution_has_all_parts(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.attribution(3, 8, batch_i=ROW)
    rows = [[*found["heads"][i], found["attn_bias"][i], found["ffn"][i]] for i in (1, 0)]
    assert numbers(found.picture()) == [float(value) for row in rows for value in row]
    assert f"{float(found['embedding']):.4f}" in found.picture()
    assert "head" in gpt2.attribution([3, 8]).picture()


def test_an_attribution_prints_a_line_for_each_layer(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.attribution(3, batch_i=ROW)
    lines = str(found).splitlines()
    sums = [float(found["heads"][1].sum()), float(found["attn_bias"][1]), float(found["ffn"][1])]
    assert lines[3].split() == ["layer", "1", *(f"{part:.4f}" for part in sums)]
    assert lines[-1].split() == ["total", f"{float(found['total']):.4f}"]


def test_scores_print_the_highest_first(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.head_scores("previous", ROW)
    (layer, head, score), *_ = found.top()
    assert str(found).splitlines()[2].split() == ["layer", str(layer), "head", str(head), f"{score:.4f}"]


def test_text_is_coloured_by_the_tokens_own_probabilities(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.token_logprobs(ROW)
    shown = numbers(found._repr_html_())
    assert len(shown) == N
    assert shown[0] != shown[0], "the first was not predicted"
    assert shown[1:] == found.logprobs[:-1].double().tolist()
    assert f"rank {int(found.ranks[0])}" in found._repr_html_()
