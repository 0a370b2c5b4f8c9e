"""Tensors as bytes: what exactly travels, and what is refused."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings

from support.models.tensors import any_tensors, assert_same_bits
from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.tensors import decode, encode, header

INF, NAN = math.inf, math.nan
TINY = 2.0**-24

LITERALS: list[tuple[torch.dtype, list[float], str]] = [
    (torch.bool, [True, False, True], "01 00 01"),
    (torch.uint8, [0, 1, 255], "00 01 ff"),
    (torch.int8, [1, -1, -128], "01 ff 80"),
    (torch.int16, [1, -2, 0x1234], "01 00 fe ff 34 12"),
    (torch.int32, [1, -2], "01 00 00 00 fe ff ff ff"),
    (torch.int64, [1, -2], "01 00 00 00 00 00 00 00 fe ff ff ff ff ff ff ff"),
    (torch.float16, [1.0, -0.0, INF, -INF, NAN, TINY], "00 3c 00 80 00 7c 00 fc 00 7e 01 00"),
    (torch.bfloat16, [1.0, -0.0, INF, -INF, NAN, TINY], "80 3f 00 80 80 7f 80 ff c0 7f 80 33"),
    (torch.float32, [1.0, -INF, NAN, TINY], "00 00 80 3f 00 00 80 ff 00 00 c0 7f 00 00 80 33"),
    (torch.float64, [1.0, NAN], "00 00 00 00 00 00 f0 3f 00 00 00 00 00 00 f8 7f"),
]
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (2, 0, 3), (0, 0), (1, 1, 1, 1), (2, 3)]


# Literal bytes


@pytest.mark.parametrize(("dtype", "values", "expected"), LITERALS, ids=lambda value: str(value)[:14])
def test_elements_travel_little_endian(dtype: torch.dtype, values: list[float], expected: str) -> None:
    message = encode(torch.tensor(values, dtype=dtype))
    assert message.data.hex(" ") == expected
    assert list(message.shape) == [len(values)]
    assert message.dtype == dtypes.to_wire(dtype)


@pytest.mark.parametrize(("dtype", "values", "data"), LITERALS, ids=lambda value: str(value)[:14])
def test_literal_bytes_are_read_as_these_elements(dtype: torch.dtype, values: list[float], data: str) -> None:
    message = tensor_pb2.Tensor(dtype=dtypes.to_wire(dtype), shape=[len(values)], data=bytes.fromhex(data))
    assert_same_bits(decode(message), torch.tensor(values, dtype=dtype))


def test_the_literals_cover_every_dtype() -> None:
    assert {dtype for dtype, _, _ in LITERALS} == set(dtypes.TORCH_BY_WIRE.values())


def test_a_transposed_tensor_travels_in_c_order() -> None:
    transposed = torch.tensor([[1, 2, 3], [4, 5, 6]], dtype=torch.uint8).T
    assert encode(transposed).data.hex(" ") == "01 04 02 05 03 06"


def test_a_part_of_a_larger_tensor_travels_alone() -> None:
    assert encode(torch.arange(10, dtype=torch.uint8)[3:9:2]).data.hex(" ") == "03 05 07"


def test_a_tensor_that_wants_gradients_travels() -> None:
    assert encode(torch.ones(1, requires_grad=True)).data.hex(" ") == "00 00 80 3f"


def test_a_decoded_tensor_can_be_written_to() -> None:
    message = encode(torch.zeros(2))
    decode(message).add_(1)
    assert message == encode(torch.zeros(2))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", dtypes.WIRE_BY_TORCH, ids=str)
def test_scalars_and_empty_tensors_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    assert_same_bits(decode(encode(tensor)), tensor)


# Refusals of decode


def test_a_wrong_number_of_bytes_is_refused() -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=[2, 3], data=b"\0" * 23)
    with pytest.raises(InvalidRequestError) as refused:
        decode(message)
    assert refused.value.message == "a F32 tensor of shape [2, 3] has 24 bytes, got 23"
    assert refused.value.reason == "INVALID_SHAPE"
    assert refused.value.metadata == {"expected": "24", "got": "23"}


@pytest.mark.parametrize(
    ("shape", "data", "text"),
    [
        ([], b"", "a F32 tensor of shape [] has 4 bytes, got 0"),
        ([0], b"\0" * 4, "a F32 tensor of shape [0] has 0 bytes, got 4"),
        ([2**20, 2**20], b"", f"a F32 tensor of shape [{2**20}, {2**20}] has {2**42} bytes, got 0"),
        ([2**40, 2**22], b"", f"no tensor can have the shape [{2**40}, {2**22}]"),
    ],
    ids=str,
)
def test_bytes_must_fill_the_shape_exactly(shape: list[int], data: bytes, text: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        decode(tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=shape, data=data))
    assert refused.value.message == text


def test_a_tensor_without_a_dtype_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"^dtype 0 is unknown"):
        decode(tensor_pb2.Tensor(shape=[1], data=b"\0"))


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62], [2**40, 2**40], [2**63] * 8], ids=str)
def test_a_tensor_with_an_impossible_shape_is_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        decode(tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=shape))
    assert refused.value.message == f"no tensor can have the shape {shape}"
    assert refused.value.reason == "INVALID_SHAPE"


def test_a_shape_of_too_many_axes_is_refused_whatever_they_are() -> None:
    message = tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=[2**63] * 400_000)
    with pytest.raises(InvalidRequestError) as refused:
        decode(message)
    assert refused.value.message == "no tensor has 400000 axes, at most 8"
    assert len(refused.value.metadata["got"]) < 250


# Headers


def test_a_header_says_what_is_to_come() -> None:
    expected = tensor_pb2.TensorHeader(
        name="residual_in",
        dtype=tensor_pb2.DTYPE_F16,
        shape=[1, 3],
        dims=["batch", "pos"],
        total_bytes=6,
        etag="e1",
    )
    made = header("residual_in", torch.float16, (1, 3), ("batch", "pos"), "e1").SerializeToString()
    assert tensor_pb2.TensorHeader.FromString(made) == expected


# Any tensor


@given(any_tensors())
@settings(deadline=None)
def test_any_tensor_comes_back_from_one_message(tensor: torch.Tensor) -> None:
    arrived = tensor_pb2.Tensor.FromString(encode(tensor).SerializeToString())
    assert_same_bits(decode(arrived), tensor)
