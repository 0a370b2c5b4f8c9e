"""Factors and blocks give the decompositions to the bit, with or without an implementation that knows them."""

from __future__ import annotations

import pytest
import torch

from support.models.batch import ROWS
from support.models.families import FAMILIES
from support.models.given import ContractOnly
from support.servers.servers import tiny
from transparent_llm.analysis import factored
from transparent_llm.analysis.factored import attn_blocks, attn_factors, ffn_blocks
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotRunError, NotSupportedError


def run_of(family: str) -> TransparentLlm:
    llm = tiny(family).copy()
    llm.run_tokens(ROWS)
    return llm


@pytest.mark.parametrize("family", FAMILIES)
def test_the_product_of_factors_is_the_value(family: str) -> None:
    llm = run_of(family)
    assert torch.equal(attn_factors(llm, -1, -1).product(), llm.decomposed_attn(-1, -1))


@pytest.mark.parametrize("plain", [False, True], ids=["factors", "contract"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "mixtral", "llama_gqa"])
def test_blocks_put_together_are_the_value(family: str, plain: bool) -> None:
    llm = run_of(family)
    asked = ContractOnly(llm) if plain else llm
    blocks = list(attn_blocks(asked, 0, 1))
    assert [block.start for block, _ in blocks] == (list(range(len(ROWS[0]))) if plain else [0])
    assert torch.equal(torch.cat([factors.product() for _, factors in blocks]), llm.decomposed_attn(0, 1))


@pytest.mark.parametrize("plain", [False, True], ids=["factors", "contract"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2", "granite", "mixtral", "llama_gqa"])
def test_blocks_of_neurons_are_the_value(family: str, plain: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = run_of(family)
    monkeypatch.setattr(factored, "BLOCK_BYTES", 4 * 64 * 37)
    blocks = [(at, rows.clone()) for at, rows in ffn_blocks(ContractOnly(llm) if plain else llm, 0, 1, -1)]
    assert torch.equal(torch.cat([rows for _, rows in blocks]), llm.decomposed_ffn_out(0, 1, -1))
    assert [at.start for at, _ in blocks] == list(range(0, blocks[-1][0].stop, 37))


def test_factors_take_no_copy_of_the_pattern() -> None:
    llm = run_of("gpt2")
    first, second = (attn_factors(llm, 0, 1).pattern for _ in range(2))
    assert first.data_ptr() == second.data_ptr()


def test_one_that_knows_no_factors_says_so() -> None:
    with pytest.raises(NotSupportedError, match="ContractOnly does not say what decomposed_attn is the product of"):
        attn_factors(ContractOnly(run_of("gpt2")), 0, 0)


def test_before_a_run_there_are_none() -> None:
    with pytest.raises(NotRunError):
        attn_factors(tiny("gpt2").copy(), 0, 0)
