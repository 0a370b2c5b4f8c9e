"""What heads look at: patterns in one read, scores as their definitions have them, lengths of what is moved."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from transformer_lens.head_detector import (
    get_duplicate_token_head_detection_pattern,
    get_induction_head_detection_pattern,
    get_previous_token_head_detection_pattern,
)

from support.models.families import FAMILIES, N_HEADS, build_model, build_tokenizer, hybrid_config
from support.models.reference import HuggingFaceReference
from support.servers.servers import tiny
from transparent_llm import TransparentLlm
from transparent_llm.analysis.heads import KINDS, MASKS, attention_matrices, head_scores, value_weighted_norms
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.demo import DEMO_MODEL

REPEATING = [[0, 9, 8, 7, 9, 8, 8, 7, 0, 3, 9], [5, 6, 7, 5], [4]]
"""Some tokens thrice, one twice in a row; padding follows all rows but the first."""


@cache
def run_of(family: str) -> TransformerLensTransparentLlm:
    llm = tiny(family).copy()
    llm.run_tokens(REPEATING)
    return llm


@cache
def plain(family: str) -> HuggingFaceReference:
    reference = HuggingFaceReference(build_model(FAMILIES[family]()), build_tokenizer(), prepend_bos=False)
    reference.run_tokens(REPEATING)
    return reference


def keys_of(kind: str, tokens: list[int], query: int) -> set[int]:
    """As the definition says it, token by token."""
    earlier = [key for key in range(query) if tokens[key] == tokens[query]]
    return {
        "previous": {query - 1} if query else set(),
        "first": {0},
        "self": {query},
        "duplicate": set(earlier),
        "induction": {key + 1 for key in earlier},
    }[kind]


def score(kind: str, pattern: torch.Tensor, tokens: list[int]) -> float:
    """Of one head, in float64."""
    rows = pattern.double()[: len(tokens), : len(tokens)].tolist()
    if kind == "entropy":
        return sum(-sum(p * math.log(p) for p in row if p > 0) for row in rows) / len(rows)
    keys = [keys_of(kind, tokens, query) for query in range(len(tokens))]
    paid = [sum(row[key] for key in of_query) for row, of_query in zip(rows, keys, strict=True) if of_query]
    return sum(paid) / len(paid) if paid else 0.0


# Attention


@pytest.mark.parametrize("family", FAMILIES)
def test_all_patterns_of_a_layer_come_in_one_read(family: str) -> None:
    llm, reference = run_of(family), plain(family)
    for layer in range(llm.model_info().n_layers):
        for row, tokens in enumerate(REPEATING):
            got = attention_matrices(llm, row, layer)
            assert got.shape == (N_HEADS, 11, 11)
            assert got.dtype == torch.float32
            n = len(tokens)
            for head in range(N_HEADS):
                assert torch.equal(got[head, :n, :n], llm.attention_matrix(row, layer, head)[:n, :n])
                assert (got[head] - reference.attention_matrix(row, layer, head)).abs().max().item() <= 1e-5
            assert not got[:, n:].any()
            assert not got[:, :, n:].any()


# Scores


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("family", ["gpt2", "llama_gqa", "gemma3", "gpt_oss", "bloom"])
def test_scores_are_those_of_their_definition(family: str, kind: str) -> None:
    llm, reference = run_of(family), plain(family)
    for row, tokens in enumerate(REPEATING):
        got = head_scores(llm, row, 1, kind)
        assert got.dtype == torch.float32
        wanted = [score(kind, reference.attention_matrix(row, 1, head), tokens) for head in range(N_HEADS)]
        assert got.tolist() == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_a_batch_scores_as_the_sentence_alone(kind: str) -> None:
    alone = tiny("qwen2").copy()
    alone.run_tokens([REPEATING[1]])
    together = head_scores(run_of("qwen2"), -2, 0, kind)
    assert together.tolist() == pytest.approx(head_scores(alone, 0, 0, kind).tolist(), abs=1e-6)


def test_where_no_token_has_such_a_key_the_score_is_0() -> None:
    llm = run_of("gpt2")
    scores = {kind: head_scores(llm, 2, 0, kind).tolist() for kind in KINDS}
    none, all_of_it = [0.0] * N_HEADS, [1.0] * N_HEADS
    assert scores == {
        "induction": none,
        "previous": none,
        "duplicate": none,
        "first": all_of_it,
        "self": all_of_it,
        "entropy": none,
    }


@pytest.mark.parametrize(
    ("kind", "detection_pattern"),
    [
        ("previous", get_previous_token_head_detection_pattern),
        ("duplicate", get_duplicate_token_head_detection_pattern),
        ("induction", get_induction_head_detection_pattern),
    ],
)
def test_keys_are_those_of_transformer_lens(kind: str, detection_pattern: object) -> None:
    for tokens in (*REPEATING[:2], [1, 1, 1, 2, 1]):
        ids = torch.tensor(tokens)
        assert callable(detection_pattern)
        assert torch.equal(MASKS[kind](ids).float(), detection_pattern(ids[None]).float())


def test_the_induction_head_of_the_demo_model_shows() -> None:
    llm = TransformerLensTransparentLlm(str(DEMO_MODEL))
    generator = torch.Generator().manual_seed(23)
    unit = (1 + torch.randperm(llm.model_info().d_vocab - 1, generator=generator))[:23].tolist()
    bos = int(llm.to_tokens("a")[0])
    llm.run_tokens([[bos, *unit, *unit]])
    scores = torch.stack([head_scores(llm, 0, layer, "induction") for layer in range(llm.model_info().n_layers)])
    assert scores[1, 0].item() > 0.9
    scores[1, 0] = 0.0
    assert scores.max().item() < 0.3
    previous = head_scores(llm, 0, 0, "previous")
    assert previous.argmax().item() == 0


# What is moved


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_are_those_of_what_was_moved(family: str) -> None:
    llm, reference = run_of(family), plain(family)
    for layer in range(llm.model_info().n_layers):
        for row, tokens in enumerate(REPEATING):
            n = len(tokens)
            got = value_weighted_norms(llm, row, layer)
            wanted = reference.decomposed_attn(row, layer)[:n, :n].double().norm(dim=-1).permute(2, 0, 1)
            assert got.shape == (N_HEADS, 11, 11)
            assert got.dtype == torch.float32
            assert (got[:, :n, :n] - wanted).abs().max().item() <= 1e-5
            assert not got[:, n:].any()
            assert not got[:, :, n:].any()


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite"])
def test_any_implementation_gives_the_same(family: str) -> None:
    llm, reference = run_of(family), plain(family)
    for row in range(len(REPEATING)):
        for function in (attention_matrices, value_weighted_norms):
            ours, theirs = function(llm, row, 1), function(reference, row, 1)
            assert (ours - theirs).abs().max().item() <= 1e-5


# What cannot be


def test_what_cannot_be_is_refused_in_words() -> None:
    llm = run_of("gpt2")
    kinds = "induction, previous, duplicate, first, self, entropy"
    with pytest.raises(InvalidRequestError, match=f"kind 'inductoin' is unknown; known are {kinds}"):
        head_scores(llm, 0, 0, "inductoin")
    for function in (attention_matrices, value_weighted_norms):
        with pytest.raises(IndexOutOfRangeError, match="layer 2 is out of range: valid indices are 0 to 1"):
            function(llm, 0, 2)
        with pytest.raises(IndexOutOfRangeError, match="batch_i 3 is out of range: valid indices are 0 to 2"):
            function(llm, 3, 0)


def test_a_layer_without_heads_has_nothing_to_score() -> None:
    llm = TransformerLensTransparentLlm("hybrid", build_model(hybrid_config()), build_tokenizer())
    llm.run_tokens(REPEATING)

    def reads(of: TransparentLlm, layer: int) -> list[torch.Tensor]:
        return [attention_matrices(of, 0, layer), head_scores(of, 0, layer, "self"), value_weighted_norms(of, 0, layer)]

    assert [len(found) for found in reads(llm, 1)] == [4, 4, 4]
    for function in (attention_matrices, value_weighted_norms, lambda *place: head_scores(*place, "first")):
        with pytest.raises(NotSupportedError, match="layer 0 of Lfm2ForCausalLM: it has no attention heads"):
            function(llm, 0, 0)
