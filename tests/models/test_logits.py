"""Logits that are made from the last residual when they are asked for: any part has the bits of the whole."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.models.batch import assert_close
from support.models.families import FAMILIES, build_model
from support.models.parts import indices, joined
from support.servers.servers import tiny
from transparent_llm_server.models.derived.logits import Logits
from transparent_llm_server.models.values.value import Value

SCORED = ["gpt2", "gemma2", "granite"]
"""The product with the unembedding as it is, with a soft cap, and scaled."""

ROWS = [list(range(5, 55)), list(range(100, 140)), [3, 4, 3]]
"""The longest is longer than a block."""

BLOCK = 32
"""Positions that are computed together in a model of so small a vocabulary."""

FEW = settings(deadline=None, max_examples=30)


@cache
def logits(family: str) -> Value:
    llm = tiny(family).copy()
    llm.run_tokens(ROWS)
    return llm.values().logits()


@cache
def whole(family: str) -> torch.Tensor:
    return logits(family).tensor()


@pytest.mark.parametrize("family", SCORED)
def test_logits_are_those_of_the_plain_model(family: str) -> None:
    plain = build_model(FAMILIES[family]())
    for row, tokens in enumerate(ROWS):
        with torch.no_grad():
            wanted = plain(torch.tensor([tokens])).logits[0]
        assert_close(whole(family)[row, : len(tokens)], wanted)


@pytest.mark.parametrize("family", SCORED)
def test_logits_are_what_unembedding_the_last_residual_gives(family: str) -> None:
    llm = tiny(family).copy()
    llm.run_tokens(ROWS)
    residual = llm.residual_out(len(llm.bridged.layers) - 1)
    for pos in (0, BLOCK - 1, BLOCK, 49):
        assert_close(whole(family)[0, pos], llm.unembed(residual[0, pos], normalize=True))


def test_shape_and_dtype_are_known_before_anything_is_computed() -> None:
    value = logits("gpt2")
    assert (value.shape, value.dtype, value.nbytes) == ((3, 50, 500), torch.float32, 3 * 50 * 500 * 4)
    assert not value.is_quick
    assert value.factors() == ()


def test_a_whole_belongs_to_the_caller() -> None:
    logits("gpt2").own_tensor().zero_()
    assert torch.equal(logits("gpt2").tensor(), whole("gpt2"))


def test_a_later_run_does_not_change_the_logits_of_an_earlier_one() -> None:
    llm = tiny().copy()
    llm.run_tokens(ROWS)
    value = llm.values().logits()
    llm.run_tokens([[1, 2]])
    assert torch.equal(value.tensor(), whole("gpt2"))


# Parts


@pytest.mark.parametrize("family", SCORED)
@given(data=st.data(), max_bytes=st.integers(0, 10**4) | st.integers(0, 10**6))
@FEW
def test_any_part_has_the_bits_of_the_whole(family: str, data: st.DataObject, max_bytes: int) -> None:
    index = data.draw(indices(logits(family).shape), label="index")
    wanted = whole(family)[index]
    part = logits(family).select(index)
    assert (part.shape, part.dtype) == (tuple(wanted.shape), wanted.dtype)
    assert torch.equal(part.tensor(), wanted)
    assert torch.equal(joined(part, max_bytes), wanted)


@given(st.data())
@FEW
def test_a_part_of_a_part_is_that_part(data: st.DataObject) -> None:
    first = data.draw(indices(logits("gpt2").shape), label="first")
    wanted = whole("gpt2")[first]
    second = data.draw(indices(wanted.shape), label="second")
    assert torch.equal(logits("gpt2").select(first).select(second).tensor(), wanted[second])


@pytest.mark.parametrize("pos", [0, BLOCK - 1, BLOCK, BLOCK + 1, 49])
@pytest.mark.parametrize("family", SCORED)
def test_one_position_alone_has_the_bits_of_the_whole(family: str, pos: int) -> None:
    index = (slice(0, 1), slice(pos, pos + 1), slice(0, 500))
    assert torch.equal(logits(family).select(index).tensor(), whole(family)[index])


def test_the_same_row_in_a_larger_batch_of_one_width_has_the_same_bits() -> None:
    residual = tiny().copy()
    residual.run_tokens(ROWS)
    stream = residual.residual_out(1)
    one, all_rows = Logits(tiny().bridged, stream[1:2].clone()), Logits(tiny().bridged, stream)
    assert torch.equal(one.tensor()[0], all_rows.tensor()[1])


# Memory


@pytest.mark.parametrize("family", SCORED)
@given(data=st.data(), max_bytes=st.integers(0, 10**4) | st.integers(0, 10**6))
@FEW
def test_no_piece_is_larger_than_it_may_be_unless_one_block_is(
    family: str, data: st.DataObject, max_bytes: int
) -> None:
    part = logits(family).select(data.draw(indices(logits(family).shape), label="index"))
    a_block = BLOCK * part.shape[2] * part.dtype.itemsize
    for piece in part.pieces(max_bytes):
        assert math.prod(piece.shape) * part.dtype.itemsize <= max(max_bytes, a_block)


def test_small_parts_of_many_blocks_share_a_piece() -> None:
    last = logits("gpt2").select((slice(0, 3), slice(49, 50), slice(0, 500)))
    assert [piece.shape for piece in last.pieces(10**6)] == [(3, 500)]
    assert [piece.shape for piece in last.pieces(2 * 500 * 4)] == [(2, 500), (1, 500)]
    assert [piece.shape for piece in last.pieces(1)] == [(1, 500)] * 3


@pytest.mark.parametrize("axis", range(3), ids=["batch", "pos", "d_vocab"])
def test_no_rows_positions_or_tokens_are_an_empty_tensor(axis: int) -> None:
    index = [slice(0, 0 if i == axis else n) for i, n in enumerate(logits("gpt2").shape)]
    part = logits("gpt2").select(index)
    assert part.nbytes == 0
    assert part.tensor().shape == part.shape
