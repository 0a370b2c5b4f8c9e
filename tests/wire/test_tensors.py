"""Tensors as bytes: what exactly travels, how it is put together again, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire import dtypes
from transparent_llm.wire._gen import tensor_pb2
from transparent_llm.wire.tensors import Assembler, StreamError, chunks, decode, encode, header

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


def bits(tensor: torch.Tensor) -> bytes:
    """Its elements in C order, read without the code under test."""
    return bytes(tensor.reshape(-1).view(torch.uint8).tolist())


def assert_same_bits(got: torch.Tensor, expected: torch.Tensor) -> None:
    assert got.dtype is expected.dtype
    assert got.shape == expected.shape
    assert bits(got) == bits(expected)


def head_of(tensor: torch.Tensor, etag: str = "one") -> tensor_pb2.TensorHeader:
    return header(tensor, "value", [f"axis{i}" for i in range(tensor.ndim)], etag)


def sent(tensor: torch.Tensor, chunk_bytes: int, offset: int = 0, etag: str = "one") -> list[tensor_pb2.TensorChunk]:
    return list(chunks(tensor, head_of(tensor, etag), chunk_bytes=chunk_bytes, offset=offset))


def assembled(messages: Iterable[tensor_pb2.TensorChunk], assembler: Assembler | None = None) -> Assembler:
    assembler = assembler or Assembler()
    for message in messages:
        assembler.add(message)
    return assembler


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
    assert_same_bits(assembled(sent(tensor, chunk_bytes=3)).tensor(), tensor)


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
        ([2**40, 2**40], b"", f"a F32 tensor of shape [{2**40}, {2**40}] has {2**82} bytes, got 0"),
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


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62]], ids=str)
def test_an_empty_tensor_with_an_impossible_axis_is_refused(shape: list[int]) -> None:
    with pytest.raises(InvalidRequestError):
        decode(tensor_pb2.Tensor(dtype=tensor_pb2.DTYPE_F32, shape=shape))


# Literal messages


def test_a_small_tensor_is_a_single_message() -> None:
    tensor = torch.tensor(1.0)
    head = tensor_pb2.TensorHeader(name="value", dtype=tensor_pb2.DTYPE_F32, total_bytes=4, etag="one")
    assert sent(tensor, chunk_bytes=100) == [tensor_pb2.TensorChunk(header=head, data=b"\x00\x00\x80\x3f")]


def test_the_first_message_of_a_stream_byte_by_byte() -> None:
    (message,) = chunks(
        torch.tensor([[1], [2]], dtype=torch.uint8),
        header(torch.zeros(2, 1, dtype=torch.uint8), "x", ("pos", "d"), "e"),
        chunk_bytes=2,
    )
    head = b"\x0a\x01x" + b"\x10\x02" + b"\x1a\x02\x02\x01" + b"\x22\x03pos\x22\x01d" + b"\x28\x02" + b"\x32\x01e"
    assert message.SerializeToString() == b"\x0a" + bytes([len(head)]) + head + b"\x1a\x02\x01\x02"


def test_a_chunk_may_end_within_an_element() -> None:
    tensor = torch.tensor([[1.0, 2.0, -INF]], dtype=torch.float16)
    head = tensor_pb2.TensorHeader(
        name="residual_in",
        dtype=tensor_pb2.DTYPE_F16,
        shape=[1, 3],
        dims=["batch", "pos"],
        total_bytes=6,
        etag="e1",
    )
    assert header(tensor, "residual_in", ("batch", "pos"), "e1") == head
    assert list(chunks(tensor, head, chunk_bytes=5)) == [
        tensor_pb2.TensorChunk(header=head, offset=0, data=b"\x00\x3c\x00\x40\x00"),
        tensor_pb2.TensorChunk(offset=5, data=b"\xfc"),
    ]


def test_a_resumed_stream_begins_with_the_header_at_its_offset() -> None:
    tensor = torch.tensor([1, 2, 3, 4, 5], dtype=torch.uint8)
    assert sent(tensor, chunk_bytes=2, offset=2) == [
        tensor_pb2.TensorChunk(header=head_of(tensor), offset=2, data=b"\x03\x04"),
        tensor_pb2.TensorChunk(offset=4, data=b"\x05"),
    ]


def test_a_stream_resumed_at_its_end_is_a_header_without_data() -> None:
    tensor = torch.tensor([1, 2], dtype=torch.uint8)
    assert sent(tensor, chunk_bytes=9, offset=2) == [tensor_pb2.TensorChunk(header=head_of(tensor), offset=2)]


def test_an_empty_tensor_is_a_header_alone() -> None:
    tensor = torch.empty(2, 0)
    assert sent(tensor, chunk_bytes=9) == [tensor_pb2.TensorChunk(header=head_of(tensor))]


def test_no_message_follows_a_chunk_that_ends_with_the_tensor() -> None:
    assert [len(message.data) for message in sent(torch.zeros(8, dtype=torch.uint8), chunk_bytes=4)] == [4, 4]


# Assembler


def test_an_assembler_knows_how_far_it_is() -> None:
    assembler, messages = Assembler(), sent(torch.zeros(5, dtype=torch.uint8), chunk_bytes=4)
    seen = [(assembler.received, assembler.total_bytes, assembler.etag, assembler.complete)]
    for message in messages:
        assembler.add(message)
        seen.append((assembler.received, assembler.total_bytes, assembler.etag, assembler.complete))
    assert seen == [(0, 0, "", False), (4, 5, "one", False), (5, 5, "one", True)]


def test_a_second_stream_with_the_same_etag_goes_on() -> None:
    tensor = torch.arange(7, dtype=torch.int16)
    assembler = assembled(sent(tensor, chunk_bytes=5)[:1])
    assembled(sent(tensor, chunk_bytes=4, offset=5), assembler)
    assert_same_bits(assembler.tensor(), tensor)


def test_a_second_stream_with_a_new_etag_starts_again() -> None:
    old, new = torch.zeros(4, dtype=torch.int16), torch.ones(2, 3)
    assembler = assembled(sent(old, chunk_bytes=5)[:1])
    assembled(sent(new, chunk_bytes=5, etag="two"), assembler)
    assert_same_bits(assembler.tensor(), new)
    assert assembler.etag == "two"


def test_a_header_may_come_before_any_data() -> None:
    tensor = torch.tensor([7, 8], dtype=torch.uint8)
    messages = [
        tensor_pb2.TensorChunk(header=head_of(tensor)),
        tensor_pb2.TensorChunk(data=b"\x07"),
        tensor_pb2.TensorChunk(offset=1, data=b"\x08"),
    ]
    assert_same_bits(assembled(messages).tensor(), tensor)


def test_an_assembled_tensor_can_be_written_to() -> None:
    tensor = assembled(sent(torch.zeros(3), chunk_bytes=5)).tensor()
    assert (tensor + 1).tolist() == tensor.add_(1).tolist()


def refusal(messages: Iterable[tensor_pb2.TensorChunk]) -> str:
    with pytest.raises(StreamError) as refused:
        assembled(messages).tensor()
    return str(refused.value)


def test_a_stream_without_a_header_is_refused() -> None:
    assert refusal([tensor_pb2.TensorChunk(data=b"\x01")]) == "the stream began without a header"


def test_a_gap_is_refused() -> None:
    first, _, third = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=2)
    assert refusal([first, third]) == "chunk 4..6 after byte 2 of 6"


def test_a_repeated_chunk_is_refused() -> None:
    first, second, _ = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=2)
    assert refusal([first, second, second]) == "chunk 2..4 after byte 4 of 6"


def test_more_data_than_announced_is_refused() -> None:
    first, _ = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)
    assert refusal([first, tensor_pb2.TensorChunk(offset=4, data=b"\0" * 3)]) == "chunk 4..7 after byte 4 of 6"


def test_a_resumed_stream_from_the_wrong_byte_is_refused() -> None:
    tensor = torch.zeros(6, dtype=torch.uint8)
    messages = [*sent(tensor, chunk_bytes=4)[:1], *sent(tensor, chunk_bytes=4, offset=3)]
    assert refusal(messages) == "chunk 3..6 after byte 4 of 6"


def test_a_stream_that_ends_early_is_refused() -> None:
    assert refusal(sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)[:1]) == "the stream ended at byte 4 of 6"


def test_a_stream_without_any_message_is_refused() -> None:
    assert refusal([]) == "the stream ended at byte 0 of 0"


@pytest.mark.parametrize("dtype", [b"", b"\x10\x63"], ids=["unspecified", "unknown"])
def test_a_header_with_an_unknown_dtype_is_refused(dtype: bytes) -> None:
    head = tensor_pb2.TensorHeader.FromString(dtype)
    assert refusal([tensor_pb2.TensorChunk(header=head)]) == f"unknown dtype {int(head.dtype)} in the header"


@pytest.mark.parametrize(
    ("shape", "dims", "total_bytes", "text"),
    [
        ([2], ["pos"], 4, "F32 [2] ['pos'] in 4 bytes"),
        ([2], [], 8, "F32 [2] [] in 8 bytes"),
        ([], ["pos"], 4, "F32 [] ['pos'] in 4 bytes"),
        ([], [], 0, "F32 [] [] in 0 bytes"),
        ([3, 0], ["a", "b"], 12, "F32 [3, 0] ['a', 'b'] in 12 bytes"),
    ],
    ids=str,
)
def test_a_header_that_contradicts_itself_is_refused(
    shape: list[int], dims: list[str], total_bytes: int, text: str
) -> None:
    head = tensor_pb2.TensorHeader(dtype=tensor_pb2.DTYPE_F32, shape=shape, dims=dims, total_bytes=total_bytes)
    assert refusal([tensor_pb2.TensorChunk(header=head)]) == f"header contradicts itself: {text}"


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62]], ids=str)
def test_a_header_with_an_impossible_axis_is_refused(shape: list[int]) -> None:
    dims = [f"axis{i}" for i in range(len(shape))]
    refusal(
        [tensor_pb2.TensorChunk(header=tensor_pb2.TensorHeader(dtype=tensor_pb2.DTYPE_F32, shape=shape, dims=dims))]
    )


def test_what_was_received_survives_a_refused_header() -> None:
    tensor = torch.arange(4, dtype=torch.uint8)
    assembler = assembled(sent(tensor, chunk_bytes=3)[:1])
    with pytest.raises(StreamError):
        assembler.add(tensor_pb2.TensorChunk(header=tensor_pb2.TensorHeader(etag="two")))
    assembled(sent(tensor, chunk_bytes=3, offset=3), assembler)
    assert_same_bits(assembler.tensor(), tensor)


# Any tensor, any cut


@st.composite
def any_tensors(draw: st.DrawFn) -> torch.Tensor:
    """Any bits at all: every NaN payload, both zeros, subnormals, infinities."""
    dtype = draw(st.sampled_from(list(dtypes.WIRE_BY_TORCH)))
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    size = math.prod(shape) * dtype.itemsize
    data = draw(st.binary(min_size=size, max_size=size))
    held = bytearray(byte & 1 for byte in data) if dtype is torch.bool else bytearray(data)
    return torch.frombuffer(held, dtype=dtype).reshape(shape) if size else torch.empty(shape, dtype=dtype)


@given(any_tensors())
@settings(deadline=None)
def test_any_tensor_comes_back_from_one_message(tensor: torch.Tensor) -> None:
    arrived = tensor_pb2.Tensor.FromString(encode(tensor).SerializeToString())
    assert_same_bits(decode(arrived), tensor)


@given(any_tensors(), st.integers(1, 700))
@settings(deadline=None)
def test_any_tensor_comes_back_from_chunks_of_any_size(tensor: torch.Tensor, chunk_bytes: int) -> None:
    messages = sent(tensor, chunk_bytes)
    assert all(len(message.data) <= chunk_bytes for message in messages)
    assert_same_bits(assembled(messages).tensor(), tensor)


@given(any_tensors(), st.integers(1, 50), st.data())
@settings(deadline=None)
def test_any_tensor_comes_back_after_cuts_anywhere(tensor: torch.Tensor, chunk_bytes: int, data: st.DataObject) -> None:
    assembler = Assembler()
    for cut in sorted(data.draw(st.lists(st.integers(0, tensor.nbytes), max_size=3), label="cuts")):
        upto = cut - assembler.received
        assembled(sent(tensor, max(upto, 1), offset=assembler.received)[: 1 if upto else 0], assembler)
        assert assembler.received == cut
    assembled(sent(tensor, chunk_bytes, offset=assembler.received), assembler)
    assert_same_bits(assembler.tensor(), tensor)


@given(any_tensors(), any_tensors(), st.integers(0, 50), st.integers(1, 50))
@settings(deadline=None)
def test_any_restart_gives_the_new_bits(
    old: torch.Tensor, new: torch.Tensor, before_cut: int, chunk_bytes: int
) -> None:
    assembler = assembled(sent(old, chunk_bytes)[:before_cut])
    assembled(sent(new, chunk_bytes, etag="two"), assembler)
    assert_same_bits(assembler.tensor(), new)
