"""Values before they are computed: cut without copies, taken whole or in pieces that make the whole again."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.models.parts import indices, joined
from transparent_llm_server.models.values.value import Computed, Stored, Sum, Value, as_slice, cut_ranges, cut_shape

SHAPES = st.lists(st.integers(0, 5), max_size=4).map(tuple)


def counted(*shape: int) -> torch.Tensor:
    """Each element says where it lies."""
    return torch.arange(float(math.prod(shape))).reshape(shape)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """Of any shape, lying in memory in any way: axes in any order, every so manieth element, the same one often."""
    made = counted(*draw(SHAPES))
    made = made.permute(*draw(st.permutations(range(made.ndim)))) if made.ndim else made
    if made.ndim and draw(st.booleans()):
        made = made[:: draw(st.integers(1, 3))]
    if draw(st.booleans()):
        made = made.expand(draw(st.integers(1, 3)), *made.shape)
    return made


def piece_bytes(value: Value, max_bytes: int) -> list[int]:
    return [math.prod(piece.shape) * value.dtype.itemsize for piece in value.pieces(max_bytes)]


# What is stored


def test_a_stored_tensor_is_given_out_as_it_lies() -> None:
    tensor = counted(2, 3)
    assert Stored(tensor).tensor() is tensor
    assert (Stored(tensor).shape, Stored(tensor).dtype, Stored(tensor).nbytes) == ((2, 3), torch.float32, 24)


def test_reading_what_is_stored_is_little_work() -> None:
    assert Stored(counted(2)).is_quick
    assert Stored(counted(2)).select([slice(1, 2)]).is_quick


def test_a_part_of_a_stored_tensor_is_a_view() -> None:
    tensor = counted(4, 6)
    part = Stored(tensor).select([slice(1, 3), slice(0, 6, 2)]).tensor()
    assert part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    tensor[1, 2] = -1.0
    assert part.tolist() == [[6.0, -1.0, 10.0], [12.0, 14.0, 16.0]]


def test_an_own_tensor_is_a_copy() -> None:
    tensor = counted(2, 3)
    own = Stored(tensor).own_tensor()
    own.zero_()
    assert torch.equal(tensor, counted(2, 3))


def test_what_is_stored_has_no_factors() -> None:
    assert Stored(counted(2)).factors() == ()


@pytest.mark.parametrize("max_bytes", [0, 1, 16, 10**9])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (0, 3), (7,), (5, 4), (2, 3, 4)], ids=str)
def test_a_contiguous_tensor_is_one_piece_where_it_lies(shape: tuple[int, ...], max_bytes: int) -> None:
    tensor = counted(*shape)
    (piece,) = Stored(tensor).pieces(max_bytes)
    assert piece.shape == shape
    assert piece.compute().data_ptr() == tensor.data_ptr()


def test_a_tensor_that_lies_crosswise_comes_in_rows() -> None:
    tensor = counted(3, 10).T
    assert piece_bytes(Stored(tensor), 40) == [36, 36, 36, 12]
    assert piece_bytes(Stored(tensor), 12) == [12] * 10
    assert piece_bytes(Stored(tensor), 11) == [8, 4] * 10  # a row that is too long is cut too
    assert piece_bytes(Stored(tensor), 120) == [120]


@given(tensors(), st.integers(0, 300))
@settings(deadline=None)
def test_no_piece_of_a_tensor_that_must_be_copied_is_larger_than_it_may_be(
    tensor: torch.Tensor, max_bytes: int
) -> None:
    value = Stored(tensor)
    if not tensor.is_contiguous():
        assert max(piece_bytes(value, max_bytes)) <= max(max_bytes, value.dtype.itemsize)


@given(st.data(), tensors(), st.integers(0, 300))
@settings(deadline=None)
def test_pieces_of_any_part_of_any_stored_tensor_make_the_part(
    data: st.DataObject, tensor: torch.Tensor, max_bytes: int
) -> None:
    index = data.draw(indices(tensor.shape), label="index")
    part = Stored(tensor).select(index)
    assert part.shape == tuple(tensor[index].shape)
    assert torch.equal(part.tensor(), tensor[index])
    assert torch.equal(part.own_tensor(), tensor[index])
    assert torch.equal(joined(part, max_bytes), tensor[index])


# What is computed


class Work:
    """A computation that counts how often it is done."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.times = tensor, 0

    def __call__(self) -> torch.Tensor:
        self.times += 1
        return self.tensor.clone()

    def value(self, *, is_quick: bool = False) -> Computed:
        return Computed(self.tensor.shape, self.tensor.dtype, self, is_quick=is_quick)


def test_nothing_is_computed_before_it_is_taken() -> None:
    work = Work(counted(3, 4))
    part = work.value().select([slice(0, 2), slice(1, 4)])
    (piece,) = part.pieces(1)
    assert (part.shape, part.nbytes, piece.shape, work.times) == ((2, 3), 24, (2, 3), 0)
    piece.compute()
    assert work.times == 1


def test_a_computed_value_is_computed_anew_each_time() -> None:
    work = Work(counted(3))
    value = work.value()
    value.tensor().zero_()
    assert value.own_tensor().tolist() == [0.0, 1.0, 2.0]
    assert work.times == 2


@pytest.mark.parametrize("is_quick", [True, False])
def test_a_part_is_as_much_work_as_the_whole(is_quick: bool) -> None:
    value = Work(counted(3)).value(is_quick=is_quick)
    assert value.is_quick is value.select([slice(0, 1)]).is_quick is is_quick


@given(st.data(), tensors(), st.integers(0, 300))
@settings(deadline=None)
def test_pieces_of_any_part_of_any_computed_value_make_the_part(
    data: st.DataObject, tensor: torch.Tensor, max_bytes: int
) -> None:
    index = data.draw(indices(tensor.shape), label="index")
    part = Work(tensor).value().select(index)
    assert part.shape == tuple(tensor[index].shape)
    assert torch.equal(part.tensor(), tensor[index])
    assert torch.equal(joined(part, max_bytes), tensor[index])


# Sums


@given(st.data(), tensors(), st.integers(0, 300))
@settings(deadline=None)
def test_pieces_of_any_part_of_a_sum_make_the_part(data: st.DataObject, tensor: torch.Tensor, max_bytes: int) -> None:
    index = data.draw(indices(tensor.shape), label="index")
    whole, part = tensor + tensor, Sum(tensor, tensor).select(index)
    assert torch.equal(part.tensor(), whole[index])
    assert torch.equal(joined(part, max_bytes), whole[index])
    if part.nbytes:
        assert max(piece_bytes(part, max_bytes)) <= max(max_bytes, part.dtype.itemsize)


# Cuts of cuts


@pytest.mark.parametrize("make", [Stored, lambda tensor: Work(tensor).value()], ids=["stored", "computed"])
@given(data=st.data(), tensor=tensors())
@settings(deadline=None)
def test_a_part_of_a_part_is_that_part(make: type[Stored], data: st.DataObject, tensor: torch.Tensor) -> None:
    first = data.draw(indices(tensor.shape), label="first")
    second = data.draw(indices(tensor[first].shape), label="second")
    assert torch.equal(make(tensor).select(first).select(second).tensor(), tensor[first][second])


@given(st.data(), SHAPES)
@settings(deadline=None)
def test_a_shape_is_cut_as_a_tensor_is(data: st.DataObject, shape: tuple[int, ...]) -> None:
    index = data.draw(indices(shape), label="index")
    assert cut_shape(shape, index) == tuple(counted(*shape)[index].shape)


@given(st.data(), SHAPES)
@settings(deadline=None)
def test_ranges_that_are_cut_again_and_again_name_what_is_left(data: st.DataObject, shape: tuple[int, ...]) -> None:
    tensor, left = counted(*shape), counted(*shape)
    ranges = [range(n) for n in shape]
    for _ in range(data.draw(st.integers(1, 3), label="cuts")):
        index = data.draw(indices(left.shape), label="index")
        ranges, left = cut_ranges(ranges, index), left[index]
    assert tuple(map(len, ranges)) == tuple(left.shape)
    assert torch.equal(tensor[tuple(map(as_slice, ranges))], left)


@pytest.mark.parametrize("function", [cut_shape, lambda shape, index: cut_ranges([range(n) for n in shape], index)])
def test_a_cut_names_every_axis(function: object) -> None:
    assert callable(function)
    with pytest.raises(ValueError, match="zip"):
        function((2, 3), (slice(0, 1),))
