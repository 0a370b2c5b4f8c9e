"""Contributions beside their definition in float64, in every family; and what holds of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import pytest
import torch

from support.models import contributions as reference
from support.models.batch import LENGTHS, ROWS
from support.models.families import FAMILIES, build_model, build_tokenizer, hybrid_config
from support.models.given import ContractOnly, Given
from support.servers.servers import tiny
from transparent_llm.analysis import distances
from transparent_llm.analysis.contributions import (
    attn_contributions,
    contribution_edges,
    contribution_edges_to,
    neuron_contributions,
    pruned,
)
from transparent_llm.analysis.interrupt import checking
from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError, NotSupportedError
from transparent_llm.factors import AttnFactors
from transparent_llm_server import TransformerLensTransparentLlm

NORMS = ("l1", "l2")
EXACT = 2e-6
ALIKE = 1e-5
"""A row in a batch and alone: forward passes of other shapes round in another way."""

THRESHOLD = 0.04


@cache
def run_of(family: str, rows: int | None = None) -> TransformerLensTransparentLlm:
    """The standard batch, or one row of it alone."""
    llm = tiny(family).copy()
    llm.run_tokens(ROWS if rows is None else [ROWS[rows]])
    return llm


def rows_of(family: str) -> list[reference.Row]:
    return [reference.Row(run_of(family), row, n_tokens) for row, n_tokens in enumerate(LENGTHS)]


def assert_near(got: torch.Tensor, wanted: torch.Tensor, most: float = EXACT) -> None:
    assert got.dtype == torch.float32
    assert got.shape == wanted.shape
    assert (got.double() - wanted.double()).abs().max().item() <= most


# The definition


def test_attention_as_in_the_published_fixture() -> None:
    llm = Given(
        decomposed_attn=torch.tensor([[[[1.0, 1.0], [-1.0, 0.0]]]]),
        residual_in=torch.tensor([[[2.0, 1.0]]]),
        residual_after_attn=torch.tensor([[[2.0, 2.0]]]),
        tokens=torch.zeros((1, 1), dtype=torch.int64),
    )
    found = attn_contributions(llm, 0, 0, "l2")
    assert_near(found.heads, torch.tensor([[[0.43613, 0.0]]]), 1e-5)
    assert_near(found.residual, torch.tensor([0.56387]), 1e-5)


@pytest.mark.parametrize("norm", NORMS)
def test_neurons_as_in_the_published_fixture(norm: str) -> None:
    llm = Given(
        decomposed_ffn_out=torch.tensor([[1.0, 1.0], [2.0, 2.0]]),
        residual_after_attn=torch.tensor([[[1.0, 1.0]]]),
        residual_out=torch.tensor([[[4.0, 4.0]]]),
        tokens=torch.zeros((1, 1), dtype=torch.int64),
    )
    found = neuron_contributions(llm, 0, 0, 0, k=2, norm=norm)
    assert found.ids.tolist() == [1, 0]
    assert_near(found.values, torch.tensor([0.5, 0.25]), 1e-6)
    assert_near(found.residual, torch.tensor(0.25), 1e-6)


def test_what_is_not_above_the_threshold_goes_to_the_rest() -> None:
    parts, residual = pruned(torch.tensor([[0.05, 0.15], [0.05, 0.05]]), torch.tensor([0.8, 0.9]), 0.1)
    assert_near(parts, torch.tensor([[0, 0.157894], [0, 0]]), 1e-6)
    assert_near(residual, torch.tensor([0.842105, 1.0]), 1e-6)


def test_equal_to_the_threshold_is_not_above_it_and_nothing_left_is_zero() -> None:
    parts, residual = pruned(torch.tensor([[0.5, 0.0], [0.25, 0.25]]), torch.tensor([0.5, 0.5]), 0.5)
    assert parts.tolist() == [[0, 0], [0, 0]]
    assert residual.tolist() == [0, 0]


def test_what_is_no_number_stays_so() -> None:
    parts, residual = pruned(torch.tensor([[torch.nan, 0.5]]), torch.tensor([0.5]), 0.1)
    assert parts.isnan().all()
    assert residual.isnan().all()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_attention_is_as_defined(family: str, norm: str) -> None:
    for row in rows_of(family):
        n = row.n_tokens
        for layer in range(row.llm.model_info().n_layers):
            found, (heads, residual) = attn_contributions(row.llm, row.index, layer, norm), row.attention(layer, norm)
            assert_near(found.heads[:n, :n], heads)
            assert_near(found.residual[:n], residual)
            assert_near(found.heads.sum((1, 2))[:n] + found.residual[:n], torch.ones(n))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_edges_are_as_defined(family: str, norm: str) -> None:
    for row in rows_of(family):
        n = row.n_tokens
        for layer in range(row.llm.model_info().n_layers):
            found = contribution_edges(row.llm, row.index, layer, THRESHOLD, True, norm)
            wanted = row.edges(layer, THRESHOLD, norm)
            assert_near(found.attention[:n, :n], wanted[0], 1e-5)
            for part, want in zip(found[1:], wanted[1:], strict=True):
                assert_near(part[:n], want, 1e-5)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_without_renormalizing_nothing_is_left_out(family: str, norm: str) -> None:
    row = rows_of(family)[1]
    n = row.n_tokens
    found = contribution_edges(row.llm, 1, -1, 0.9, renormalize=False, norm=norm)
    last = row.llm.model_info().n_layers - 1
    heads, residual = row.attention(last, norm)
    assert_near(found.attention[:n, :n], heads.sum(-1))
    assert_near(found.attention_residual[:n], residual)
    assert_near(torch.stack([found.ffn[:n], found.ffn_residual[:n]], dim=1), row.ffn(last, norm))


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_are_as_defined(family: str, norm: str) -> None:
    row = rows_of(family)[1]
    layer, pos = row.llm.model_info().n_layers - 1, LENGTHS[1] - 1
    parts = row.llm.decomposed_ffn_out(1, layer, pos)
    middle, whole = (row.stream(name, layer)[pos] for name in ("residual_after_attn", "residual_out"))
    wanted = reference.contributions(torch.cat([parts, middle[None]])[None], whole[None], reference.P[norm])[0]
    found = neuron_contributions(row.llm, 1, -1, -1, parts.shape[0], norm)
    assert sorted(found.ids.tolist()) == list(range(parts.shape[0]))
    assert found.ids.dtype == torch.int64
    assert_near(found.values, wanted[found.ids])
    assert_near(found.residual, wanted[-1])
    assert (found.values.diff() <= 0).all()
    few = neuron_contributions(row.llm, 1, layer, pos, k=3, norm=norm)
    assert torch.equal(few.ids, found.ids[:3])
    assert torch.equal(few.values, found.values[:3])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "gpt_neox_parallel"])
def test_edges_to_some_targets_are_theirs_of_all(family: str, norm: str) -> None:
    """In any order, one twice, padding among them; of an implementation without factors too, which knows no padding."""
    batch = run_of(family)
    for llm, n in ((batch, LENGTHS[1]), (ContractOnly(batch), LENGTHS[0])):
        wanted = contribution_edges(llm, 1, 1, THRESHOLD, True, norm)
        found = contribution_edges_to(llm, 1, 1, (2, 0, 1, -1, LENGTHS[0] - 1, 0), THRESHOLD, True, norm)
        every = contribution_edges_to(llm, 1, 1, (), THRESHOLD, True, norm)
        for part, of_all, again in zip(found, wanted, every, strict=True):
            assert_near(part, of_all[[2, 0, 1, n - 1, LENGTHS[0] - 1, 0]])
            assert_near(again, of_all)
        assert found.attention.shape == (6, LENGTHS[0])
    with pytest.raises(IndexOutOfRangeError, match="pos 99"):
        contribution_edges_to(batch, 1, 1, (99,))


# Rows, padding, implementations


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", ["gpt2", "gemma3", "qwen3_moe", "gpt_neox_parallel"])
def test_a_row_of_a_batch_is_that_sentence_alone(family: str, norm: str) -> None:
    for index, n in enumerate(LENGTHS):
        batch, alone = run_of(family), run_of(family, index)
        ours, theirs = attn_contributions(batch, index, 1, norm), attn_contributions(alone, 0, 1, norm)
        assert_near(ours.heads[:n, :n], theirs.heads, ALIKE)
        assert_near(ours.residual[:n], theirs.residual, ALIKE)
        k = batch.describe().d_ffn[1]
        neurons, same = (neuron_contributions(*of, 1, -1, k, norm) for of in ((batch, index), (alone, 0)))
        assert_near(neurons.values[neurons.ids.argsort()], same.values[same.ids.argsort()], ALIKE)


@pytest.mark.parametrize("norm", NORMS)
def test_at_padding_all_is_zero(norm: str) -> None:
    llm, n = run_of("gpt2"), LENGTHS[1]
    attention = attn_contributions(llm, 1, 0, norm)
    assert attention.heads.shape == (LENGTHS[0], LENGTHS[0], 4)
    edges = contribution_edges(llm, 1, 0, 0.0, True, norm)
    neurons = neuron_contributions(llm, 1, 0, n, k=4, norm=norm)
    for padded in (attention.heads[n:], attention.heads[:, n:], attention.residual[n:], edges.attention[:, n:]):
        assert not padded.any()
    assert not any(part[n:].any() for part in edges)
    assert not neurons.values.any()
    assert not neurons.residual.any()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "mixtral"])
def test_an_implementation_without_factors_gives_the_same(family: str, norm: str) -> None:
    llm = run_of(family, 0)
    plain = ContractOnly(llm)
    for ours, theirs in zip(attn_contributions(llm, 0, 1, norm), attn_contributions(plain, 0, 1, norm), strict=True):
        assert_near(ours, theirs)
    for ours, theirs in zip(*(contribution_edges(each, 0, 1, THRESHOLD, True) for each in (llm, plain)), strict=True):
        assert_near(ours, theirs)
    ours, theirs = (neuron_contributions(each, 0, 1, -1, 4, norm) for each in (llm, plain))
    assert torch.equal(ours.ids, theirs.ids)
    assert torch.equal(ours.values, theirs.values)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("norm", NORMS)
def test_a_model_of_a_smaller_type_is_computed_in_float32(norm: str, dtype: torch.dtype) -> None:
    """Parts are products before they are rounded, so the reference of rounded ones is as far off as rounding is."""
    llm = TransformerLensTransparentLlm(
        "small", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer(), dtype=dtype
    )
    llm.run_tokens(ROWS)
    heads, residual = reference.Row(llm, 0, LENGTHS[0]).attention(1, norm)
    found = attn_contributions(llm, 0, 1, norm)
    assert_near(found.heads, heads, 1e-3)
    assert_near(found.residual, residual, 1e-3)
    assert_near(found.heads.sum((1, 2)) + found.residual, torch.ones(LENGTHS[0]))


@pytest.mark.parametrize("norm", NORMS)
def test_chunks_of_any_size_give_the_same(norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = attn_contributions(run_of("gemma2"), 0, 1, norm)
    monkeypatch.setattr(distances, "BLOCK_BYTES", 3000)
    monkeypatch.setattr(distances, "_CACHED_BYTES", 3000)
    for ours, theirs in zip(attn_contributions(run_of("gemma2"), 0, 1, norm), whole, strict=True):
        assert_near(ours, theirs, 1e-7)


def test_several_threads_give_the_same_bits() -> None:
    """Blocks are smaller then: of ten sources, and not of all that a window has."""
    generator = torch.Generator().manual_seed(0)
    vectors, whole, gain = (torch.randn(*shape, 256, generator=generator) for shape in ((48, 4), (48,), (48,)))
    pattern = torch.rand((4, 48, 48), generator=generator).tril().triu(-20)  # a sliding window
    found, before = [], torch.get_num_threads()
    for given in (None, gain):
        try:
            for n_threads in (1, 2):
                torch.set_num_threads(n_threads)
                ((_, shares),) = distances.attn_shares(AttnFactors(pattern, vectors, given), whole, "l1")
                found.append(shares)
        finally:
            torch.set_num_threads(before)
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[2], found[3])
    assert not torch.equal(found[0], found[2])


# Interruption


@contextmanager
def ended_at(call: int) -> Iterator[list[int]]:
    calls = [0]

    def ask() -> None:
        calls[0] += 1
        if calls[0] == call:
            raise KeyboardInterrupt

    with checking(ask), pytest.raises(KeyboardInterrupt):
        yield calls


@pytest.mark.parametrize("norm", NORMS)
def test_it_ends_between_pieces_when_it_should(norm: str) -> None:
    with ended_at(1):
        attn_contributions(run_of("gpt2"), 0, 0, norm)
    with ended_at(1):
        neuron_contributions(run_of("gpt2"), 0, 0, 0, 1, norm)
    with ended_at(3) as calls:
        attn_contributions(ContractOnly(run_of("gpt2", 0)), 0, 0, norm)
    assert calls == [3]
    attn_contributions(run_of("gpt2"), 0, 0, norm)  # and nobody is asked outside of the block


# Refusals


def test_indices_count_from_the_end() -> None:
    llm = run_of("gpt2")
    assert torch.equal(attn_contributions(llm, -2, -1).heads, attn_contributions(llm, 1, 1).heads)
    last = neuron_contributions(llm, 1, 1, LENGTHS[1] - 1, 9)
    assert torch.equal(neuron_contributions(llm, -2, -1, -1, 9).ids, last.ids)


def test_what_is_outside_is_refused_with_numbers() -> None:
    llm = run_of("gpt2")
    with pytest.raises(IndexOutOfRangeError, match="batch_i 3 is out of range: valid indices are 0 to 2"):
        attn_contributions(llm, 3, 0)
    with pytest.raises(IndexOutOfRangeError, match="layer 2 is out of range: valid indices are 0 to 1"):
        contribution_edges(llm, 0, 2)
    with pytest.raises(IndexOutOfRangeError, match="pos -6 is out of range"):
        neuron_contributions(llm, 1, 0, -6)


def test_parameters_that_mean_nothing_are_refused() -> None:
    llm = run_of("gpt2")
    with pytest.raises(InvalidRequestError, match="norm must be one of l1, l2, got 'l3'"):
        attn_contributions(llm, 0, 0, "l3")
    for threshold in (-0.1, 1.5, float("nan"), "much", True):
        with pytest.raises(InvalidRequestError, match="threshold must be a number from 0 to 1, got"):
            contribution_edges(llm, 0, 0, threshold)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequestError, match="k must be 1 to 256, the number of neurons of layer 0, got 0"):
        neuron_contributions(llm, 0, 0, 0, k=0)


def test_a_layer_without_heads_is_refused() -> None:
    llm = TransformerLensTransparentLlm("hybrid", hf_model=build_model(hybrid_config()), tokenizer=build_tokenizer())
    llm.run_tokens([[5, 6, 7]])
    with pytest.raises(NotSupportedError):
        contribution_edges(llm, 0, 0)
    assert contribution_edges(llm, 0, 1).attention.shape == (3, 3)
