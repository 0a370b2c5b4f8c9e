"""The table of element types, and which casts a request may ask for."""

from __future__ import annotations

import itertools
import json

import pytest
import safetensors.torch
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2

NAMES = "BOOL, U8, I8, I16, I32, I64, F16, BF16, F32, F64"
FLOATING_NAMES = "F16, BF16, F32, F64"
ALL = list(dtypes.TORCH_BY_WIRE.values())
FLOATING = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
NOT_FLOATING = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64]
STRANGERS = [torch.complex64, torch.complex128, torch.float8_e4m3fn, torch.uint16, torch.uint64]


def from_a_newer_client() -> tensor_pb2.Dtype:
    """A number that this schema does not have, as it comes out of a parsed message."""
    return tensor_pb2.TensorOptions.FromString(b"\x10\x63").dtype


def test_every_number_of_the_schema_but_unspecified_has_a_torch_dtype() -> None:
    assert set(dtypes.TORCH_BY_WIRE) == set(tensor_pb2.Dtype.values()) - {tensor_pb2.DTYPE_UNSPECIFIED}


def test_no_two_numbers_share_a_torch_dtype() -> None:
    assert len(set(dtypes.TORCH_BY_WIRE.values())) == len(dtypes.TORCH_BY_WIRE)


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_a_dtype_comes_back_from_the_wire(dtype: torch.dtype) -> None:
    assert dtypes.from_wire(dtypes.to_wire(dtype)) is dtype


@pytest.mark.parametrize("dtype", ALL, ids=str)
def test_names_are_those_that_safetensors_writes(dtype: torch.dtype) -> None:
    saved = safetensors.torch.save({"x": torch.zeros(1, dtype=dtype)})
    header = json.loads(saved[8 : 8 + int.from_bytes(saved[:8], "little")])
    assert dtypes.name(dtype) == header["x"]["dtype"]


@pytest.mark.parametrize("held", [*ALL, *STRANGERS], ids=str)
def test_no_dtype_means_the_held_one(held: torch.dtype) -> None:
    assert dtypes.wire_dtype(None, held) is held


@pytest.mark.parametrize("held", ALL, ids=str)
def test_the_held_dtype_can_be_asked_for_by_name(held: torch.dtype) -> None:
    assert dtypes.wire_dtype(held, held) is held


@pytest.mark.parametrize(("held", "wanted"), list(itertools.permutations(FLOATING, 2)), ids=str)
def test_floats_travel_as_any_floats(held: torch.dtype, wanted: torch.dtype) -> None:
    assert dtypes.wire_dtype(wanted, held) is wanted


@pytest.mark.parametrize(("held", "wanted"), list(itertools.product(FLOATING, NOT_FLOATING)), ids=str)
def test_floats_never_travel_as_integers(held: torch.dtype, wanted: torch.dtype) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dtypes.wire_dtype(wanted, held)
    assert refused.value.reason == "INVALID_DTYPE"
    assert refused.value.metadata == {"got": dtypes.name(wanted), "allowed": FLOATING_NAMES}


@pytest.mark.parametrize(("held", "wanted"), list(itertools.product(NOT_FLOATING, FLOATING)), ids=str)
def test_integers_never_travel_as_floats(held: torch.dtype, wanted: torch.dtype) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dtypes.wire_dtype(wanted, held)
    assert refused.value.reason == "INVALID_DTYPE"
    assert refused.value.metadata == {"got": dtypes.name(wanted), "allowed": dtypes.name(held)}


@pytest.mark.parametrize(("held", "wanted"), list(itertools.permutations(NOT_FLOATING, 2)), ids=str)
def test_integers_travel_only_as_they_are_held(held: torch.dtype, wanted: torch.dtype) -> None:
    with pytest.raises(InvalidRequestError):
        dtypes.wire_dtype(wanted, held)


@pytest.mark.parametrize(
    ("held", "wanted", "text"),
    [
        (torch.float32, torch.int64, f"a F32 tensor cannot be sent as I64; allowed: {FLOATING_NAMES}"),
        (torch.int64, torch.bfloat16, "a I64 tensor cannot be sent as BF16; allowed: I64"),
        (torch.bool, torch.uint8, "a BOOL tensor cannot be sent as U8; allowed: BOOL"),
    ],
)
def test_a_refused_cast_says_what_is_allowed(held: torch.dtype, wanted: torch.dtype, text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dtypes.wire_dtype(wanted, held)
    assert refused.value.message == text


@pytest.mark.parametrize("dtype", STRANGERS, ids=str)
def test_other_torch_dtypes_do_not_travel(dtype: torch.dtype) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dtypes.to_wire(dtype)
    assert refused.value.message == f"tensors of {dtype} cannot be sent; convert to one of {NAMES}"
    assert refused.value.reason == "INVALID_DTYPE"
    assert refused.value.metadata == {"got": str(dtype), "allowed": NAMES}


def test_a_complex_tensor_is_not_sent_as_a_real_one() -> None:
    with pytest.raises(InvalidRequestError, match=r"^tensors of torch.complex64 cannot be sent"):
        dtypes.wire_dtype(torch.float32, torch.complex64)


def test_an_unknown_number_is_refused_with_what_is_known() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        dtypes.from_wire(from_a_newer_client())
    assert refused.value.message == f"dtype 99 is unknown; allowed are {NAMES}"
    assert refused.value.reason == "INVALID_DTYPE"
    assert refused.value.metadata == {"got": "99", "allowed": NAMES}


def test_a_tensor_that_does_not_say_its_dtype_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"^dtype 0 is unknown"):
        dtypes.from_wire(tensor_pb2.DTYPE_UNSPECIFIED)
