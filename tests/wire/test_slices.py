"""Slices of named axes mean what Python's slices mean."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire._gen.tensor_pb2 import AxisSlice
from transparent_llm.wire.shape import MOST_AXES
from transparent_llm.wire.slices import cut, from_wire

DIMS = ("batch", "pos", "head", "d_model")
BOUNDS = st.none() | st.integers(-8, 8) | st.sampled_from([-(2**62), 2**62, 2**63 - 1])
STEPS = st.none() | st.integers(1, 8) | st.just(2**40)
BOUNDARY_CASES: list[dict[str, int]] = [
    {"start": 2**63 - 1},
    {"stop": 2**63 - 1},
    {"stop": -(2**63)},
    {"start": -(2**63)},
    {"step": 2**63 - 1},
    {"start": 1, "step": 2**63 - 1},
    {"start": 0, "stop": 3, "step": 2**63 - 1},
]


def select(tensor: torch.Tensor, dims: Sequence[str], parts: Sequence[AxisSlice]) -> torch.Tensor:
    """What messages ask for, of a tensor."""
    index = cut(tensor.shape, dims, from_wire(parts))
    return tensor if index is None else tensor[index]


def counted(*shape: int) -> torch.Tensor:
    """Every element different."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape)


def expected(tensor: torch.Tensor, axis: int, part: slice) -> torch.Tensor:
    """By Python's own slicing of the indices of an axis."""
    return tensor.index_select(axis, torch.tensor(range(tensor.shape[axis])[part], dtype=torch.int64))


def refusal(tensor: torch.Tensor, *parts: AxisSlice) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        select(tensor, DIMS[: tensor.ndim], parts)
    assert refused.value.reason == "INVALID_SLICE"
    return refused.value


@given(st.lists(st.integers(0, 6), max_size=4), st.data())
@settings(deadline=None, max_examples=200)
def test_any_slices_cut_as_python_does(shape: list[int], data: st.DataObject) -> None:
    tensor = wanted = counted(*shape)
    axes = data.draw(st.permutations(range(len(shape))).flatmap(lambda p: st.integers(0, len(p)).map(lambda n: p[:n])))
    parts = []
    for axis in axes:
        start, stop, step = data.draw(st.tuples(BOUNDS, BOUNDS, STEPS), label=DIMS[axis])
        parts.append(AxisSlice(axis=DIMS[axis], start=start, stop=stop, step=step))
        wanted = expected(wanted, axis, slice(start, stop, step))
    assert torch.equal(select(tensor, DIMS[: tensor.ndim], parts), wanted)


@pytest.mark.parametrize("bounds", BOUNDARY_CASES, ids=str)
def test_the_largest_numbers_cut_as_python_does(bounds: dict[str, int]) -> None:
    part = slice(bounds.get("start"), bounds.get("stop"), bounds.get("step"))
    got = select(counted(5), ["pos"], [AxisSlice(axis="pos", **bounds)])
    assert got.tolist() == list(range(5))[part]


def test_a_stop_of_zero_is_not_an_absent_stop() -> None:
    assert select(counted(5), ["pos"], [AxisSlice(axis="pos", stop=0)]).tolist() == []


def test_a_slice_without_bounds_takes_the_whole_axis() -> None:
    assert select(counted(3), ["pos"], [AxisSlice(axis="pos")]).tolist() == [0, 1, 2]


def test_a_part_is_a_view_of_the_whole() -> None:
    tensor = counted(4, 5)
    part = select(tensor, ["batch", "pos"], [AxisSlice(axis="pos", start=1, step=2), AxisSlice(axis="batch", start=-1)])
    assert part.untyped_storage().data_ptr() == tensor.untyped_storage().data_ptr()
    assert part.tolist() == [[16, 18]]


def test_without_slices_the_tensor_itself_is_returned() -> None:
    tensor = counted(2, 3)
    assert select(tensor, ["batch", "pos"], []) is tensor


def test_an_unknown_axis_is_refused_with_those_that_exist() -> None:
    error = refusal(counted(2, 3), AxisSlice(axis="layer", stop=1))
    assert error.message == "there is no axis 'layer'; this tensor has batch, pos"
    assert error.metadata == {"axis": "layer"}


def test_a_slice_that_names_no_axis_is_refused() -> None:
    assert refusal(counted(2), AxisSlice(stop=1)).message == "there is no axis ''; this tensor has batch"


def test_an_axis_sliced_twice_is_refused() -> None:
    error = refusal(counted(2, 3), AxisSlice(axis="pos", stop=1), AxisSlice(axis="pos", start=1))
    assert error.message == "axis 'pos' is sliced twice; give each axis once"
    assert error.metadata == {"axis": "pos"}


@pytest.mark.parametrize("step", [0, -1, -(2**63)])
def test_a_step_below_one_is_refused(step: int) -> None:
    error = refusal(counted(2, 3), AxisSlice(axis="pos", step=step))
    assert error.message == f"step {step} on axis 'pos': a step must be at least 1"
    assert error.metadata == {"axis": "pos"}


def test_indices_past_the_end_are_no_error() -> None:
    assert select(counted(3), ["pos"], [AxisSlice(axis="pos", start=1, stop=100)]).tolist() == [1, 2]


def test_a_step_past_the_end_takes_one_index_of_a_middle_axis() -> None:
    assert select(counted(2, 3), ["batch", "pos"], [AxisSlice(axis="batch", step=2**62)]).tolist() == [[0, 1, 2]]


def test_of_many_slices_only_so_many_are_read_as_it_takes_to_refuse_them() -> None:
    assert len(from_wire([AxisSlice(axis="pos")] * 100_000)) == MOST_AXES + 1
