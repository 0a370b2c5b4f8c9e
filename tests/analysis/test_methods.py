"""Analyses as methods, in this process and of a server: what they put together is what each layer's read gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from support.models.batch import LENGTHS, ROWS
from support.servers.backends import local_model
from transparent_llm import RemoteTransparentLlm
from transparent_llm.analysis import attribution as of_logits
from transparent_llm.analysis import contributions, heads
from transparent_llm.analysis.contribution_graph import contribution_graph
from transparent_llm.analysis.methods import Analyses
from transparent_llm.analysis.of_layer import HeadScores, OfHeads
from transparent_llm.analysis.token_logprobs import token_logprobs
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError
from transparent_llm.testing import serve_in_process
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.rpc import server_info

FAMILIES = ["gpt2", "gemma2", "llama_gqa", "mixtral", "gpt_neox_parallel"]
ROW, N = 1, LENGTHS[1]
TOKEN, MINUS = 3, 8


@pytest.fixture(params=FAMILIES)
def local(request: pytest.FixtureRequest, family_folders: dict[str, Path]) -> TransformerLensTransparentLlm:
    return of(family_folders[request.param])


def of(folder: Path) -> TransformerLensTransparentLlm:
    llm = local_model(folder).copy()
    llm.run_tokens(ROWS)
    return llm


@contextmanager
def both(local: TransformerLensTransparentLlm) -> Iterator[tuple[Analyses, RemoteTransparentLlm]]:
    with serve_in_process(local.copy()) as remote:
        remote.run_tokens(ROWS)
        yield local, remote


@pytest.fixture
def gpt2(family_folders: dict[str, Path]) -> TransformerLensTransparentLlm:
    return of(family_folders["gpt2"])


@pytest.mark.parametrize("computes", [True, False], ids=["a server", "an older server"])
def test_whether_a_server_computes_analyses_is_known_before_any_run(
    gpt2: TransformerLensTransparentLlm, monkeypatch: pytest.MonkeyPatch, computes: bool
) -> None:
    if not computes:
        monkeypatch.setattr(server_info, "FEATURES", tuple(each for each in server_info.FEATURES if each != "analysis"))
    with serve_in_process(gpt2.copy()) as remote:
        assert remote.has_analyses() is computes
        remote.run_tokens(ROWS)
        assert remote.has_analyses() is computes


def test_attribution_is_every_layers(local: TransformerLensTransparentLlm) -> None:
    n_layers = local.model_info().n_layers
    terms = of_logits.logit_terms(local, ROW, -1, TOKEN, MINUS)
    layers = [of_logits.logit_attribution(local, ROW, layer, -1, TOKEN, MINUS) for layer in range(n_layers)]
    with both(local) as each:
        for llm in each:
            found = llm.attribution(TOKEN, MINUS, batch_i=ROW)
            for name in ("heads", "attn_bias", "ffn"):
                assert torch.equal(found[name], torch.stack([getattr(layer, name) for layer in layers]))
            for name, wanted in (("embedding", terms.embedding), ("total", terms.logit)):
                assert torch.equal(found[name], wanted)
            assert abs(float(found.sum() - found["total"])) <= 1e-5


def test_attribution_is_the_models_logit(local: TransformerLensTransparentLlm) -> None:
    """Whatever the parts are: together they are what the model says."""
    cap = local.readout([TOKEN]).soft_cap
    for llm in both_of(local):
        found = llm.attribution(TOKEN, batch_i=ROW, pos=2)
        total = float(found.sum())
        said = total if cap is None else cap * float(torch.tensor(total / cap).tanh())
        assert abs(said - float(local.logits()[ROW, 2, TOKEN])) <= 1e-5


def both_of(local: TransformerLensTransparentLlm) -> Iterator[Analyses]:
    with both(local) as each:
        yield from each


def test_attribution_of_several_tokens_is_that_of_each(gpt2: TransformerLensTransparentLlm) -> None:
    for llm in both_of(gpt2):
        found = llm.attribution([TOKEN, 5, MINUS], minus=7, batch_i=ROW)
        for i, token in enumerate((TOKEN, 5, MINUS)):
            alone = llm.attribution(token, minus=7, batch_i=ROW)
            for name in alone.tensors:
                assert torch.equal(found[name][i], alone[name])
        assert torch.allclose(found.sum(), found["total"], atol=1e-5)
        with pytest.raises(InvalidRequestError, match="is of 3 tokens: ask for one"):
            found.top_heads()
        with pytest.raises(InvalidRequestError, match="tokens are empty"):
            llm.attribution([])


def test_the_strongest_heads_come_first(gpt2: TransformerLensTransparentLlm) -> None:
    found = gpt2.attribution(TOKEN, batch_i=ROW)
    strengths = {(layer, head): float(found["heads"][layer, head]) for layer in range(2) for head in range(4)}
    order = sorted(strengths, key=lambda place: -abs(strengths[place]))
    assert found.top_heads(3) == [(*place, strengths[place]) for place in order[:3]]
    assert len(found.top_heads(99)) == len(strengths)


def test_tokens_are_ids_or_their_text(gpt2: TransformerLensTransparentLlm) -> None:
    text, other = "the", "at"
    token, less = gpt2.to_single_token(text), gpt2.to_single_token(other)
    for llm in both_of(gpt2):
        named, numbered = llm.attribution(text, other), llm.attribution(token, less)
        assert torch.equal(named["heads"], numbered["heads"])
        assert f"{text!r} - {other!r}" in named.title
        lens = llm.logit_lens(token_ids=[text, less])
        assert lens.token_ids == (token, less)
        assert lens.token_strings == (text, other)
        with pytest.raises(InvalidRequestError, match="token 500 is not in the vocabulary"):
            llm.attribution(500)
        with pytest.raises(InvalidRequestError, match="is 2 tokens, not one"):
            llm.attribution("mat")
        with pytest.raises(InvalidRequestError, match=r"write \['the'\]"):
            llm.logit_lens(token_ids=text)  # type: ignore[arg-type]


def test_heads_of_a_layer(local: TransformerLensTransparentLlm) -> None:
    wanted: dict[str, torch.Tensor] = {
        "attention_matrices": heads.attention_matrices(local, ROW, -1)[:, :N, :N],
        "value_weighted_norms": heads.value_weighted_norms(local, ROW, -1)[:, :N, :N],
        "attn_contributions": contributions.attn_contributions(local, ROW, -1).heads[:N, :N],
    }
    words = local.tokens_to_strings(torch.tensor(ROWS[ROW]))
    for llm in both_of(local):
        for name, tensor in wanted.items():
            found: OfHeads = getattr(llm, name)(-1, ROW)
            first = next(iter(found.tensors.values()))
            assert torch.equal(first.tensor, tensor)
            assert all(axis.labels["token"] == words for axis in found.axes if axis.name != "head")
    shares = local.attn_contributions(0, ROW)
    assert torch.allclose(shares["heads"].sum(dim=(1, 2)) + shares["residual"], torch.ones(N), atol=1e-5)


@pytest.mark.parametrize("kind", heads.KINDS)
def test_scores_of_all_heads(gpt2: TransformerLensTransparentLlm, kind: str) -> None:
    wanted = torch.stack([heads.head_scores(gpt2, ROW, layer, kind) for layer in range(2)])
    for llm in both_of(gpt2):
        found: HeadScores = llm.head_scores(kind, ROW)
        assert torch.equal(found.scores, wanted)
        assert torch.equal(found[kind], wanted)
        layer, head, score = found.top(1)[0]
        assert score == float(wanted[layer, head]) == float(wanted.max())
        assert len(found.top(99)) == wanted.numel()


def test_single_reads_with_defaults(local: TransformerLensTransparentLlm) -> None:
    for llm in both_of(local):
        sources = llm.source_attribution(1, TOKEN, MINUS, batch_i=ROW)
        wanted = of_logits.source_attribution(local, ROW, 1, -1, TOKEN, MINUS)
        assert torch.equal(sources["logit"], wanted[:, :N])
        neurons = llm.neuron_attribution(1, TOKEN, k=4, batch_i=ROW, pos=2)
        same(neurons, of_logits.neuron_attribution(local, ROW, 1, 2, TOKEN, None, 4))
        shares = llm.neuron_contributions(0, ROW, k=3, norm="l2")
        same(shares, contributions.neuron_contributions(local, ROW, 0, -1, 3, "l2"))


def same(got: Any, wanted: Any) -> None:
    assert type(got) is type(wanted)
    assert all(torch.equal(a, b) for a, b in zip(got, wanted, strict=True))


def test_the_graph_and_the_text(local: TransformerLensTransparentLlm) -> None:
    graph, text = contribution_graph(local, ROW, 0.1), token_logprobs(local, ROW)
    for llm in both_of(local):
        found = llm.contribution_graph(ROW, threshold=0.1)
        assert found.edges() == graph.edges()
        logprobs = llm.token_logprobs(ROW)
        assert torch.equal(logprobs.logprobs.nan_to_num(1), text.logprobs[:N].nan_to_num(1))
        assert torch.equal(logprobs.ranks, text.ranks[:N])


def test_activations_as_a_method(gpt2: TransformerLensTransparentLlm) -> None:
    rows = [ids[:4] for ids in ROWS]
    alone = gpt2.copy()
    alone.run_tokens(rows)
    for llm in both_of(gpt2):
        found = llm.activations(rows, ("residual_out", 1)).tensor()
        torch.testing.assert_close(found, alone.residual_out(1)[range(3), alone.last()], rtol=1e-4, atol=1e-5)


METHODS: dict[str, tuple[Any, ...]] = {
    "logit_lens": (),
    "top_tokens": (),
    "token_logprobs": (),
    "contribution_graph": (),
    "contribution_edges_by_layer": (),
    "attn_contributions": (0,),
    "neuron_contributions": (0,),
    "attribution": (TOKEN,),
    "source_attribution": (0, TOKEN),
    "neuron_attribution": (0, TOKEN),
    "attention_matrices": (0,),
    "head_scores": (),
    "value_weighted_norms": (0,),
    "activations": (ROWS, ("residual_out", 1)),
    "top_activations": (ROWS, ("heads", 0)),
}


OF_SAES = {"saes", "features", "feature_activations"}
"""They need a model that has one: tests/features."""


def test_all_methods_are_here() -> None:
    assert {name for name in vars(Analyses) if not name.startswith("_")} == {
        *METHODS,
        *OF_SAES,
        "top_tokens_of",  # of no run, and so the others
        "head_weights",
        "composition_scores",
        "copying_scores",
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_block_that_cuts_is_refused(gpt2: TransformerLensTransparentLlm, name: str) -> None:
    with both(gpt2) as (_, remote):
        getattr(remote, name)(*METHODS[name])
        with (
            remote.reading(pos=slice(-1, None)),
            pytest.raises(InvalidRequestError, match="this reading block cuts pos: call it outside of the block"),
        ):
            getattr(remote, name)(*METHODS[name])
        getattr(remote, name)(*METHODS[name])


def test_a_block_that_gives_a_type_is_none(gpt2: TransformerLensTransparentLlm) -> None:
    with both(gpt2) as (local, remote), remote.reading(dtype=torch.bfloat16):
        wanted = local.attribution(TOKEN)
        torch.testing.assert_close(remote.attribution(TOKEN)["heads"].float(), wanted["heads"], rtol=0.01, atol=1e-3)
        assert remote.logit_lens().ids.shape == local.logit_lens().ids.shape


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name] and isinstance(METHODS[name][0], int)])
def test_what_is_not_there_is_named(gpt2: TransformerLensTransparentLlm, name: str) -> None:
    for llm in both_of(gpt2):
        with pytest.raises(IndexOutOfRangeError, match="batch_i 3 is out of range"):
            getattr(llm, name)(*METHODS[name], batch_i=3)
        if name != "attribution":
            with pytest.raises(IndexOutOfRangeError, match="layer 9 is out of range"):
                getattr(llm, name)(9, *METHODS[name][1:])


@pytest.mark.parametrize("name", ["logit_lens", "contribution_graph", "attribution", "head_scores"])
def test_a_whole_analysis_is_one_call(
    gpt2: TransformerLensTransparentLlm, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Layers together, not one after the other."""
    with both(gpt2) as (_, remote):
        asked = []

        def counted(fetch: Callable[[Any], Any], reads: Any) -> Any:
            asked.append(reads)
            return fetch(reads)

        for stream in ("fetch", "fetch_each"):
            monkeypatch.setattr(remote, stream, partial(counted, getattr(remote, stream)))
        getattr(remote, name)(*METHODS[name])
        assert [len(reads) for reads in asked] == [2 + (name in ("attribution", "logit_lens"))]
