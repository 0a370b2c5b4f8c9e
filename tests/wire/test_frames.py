"""Messages made and read by hand are those of the generated code, for any fields and for any bytes at all."""

from __future__ import annotations

import gc
import weakref

import pytest
import torch
from google.protobuf.message import DecodeError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from transparent_llm.wire import dtypes, frames
from transparent_llm.wire._gen.tensor_pb2 import SharedPiece, TensorChunk, TensorHeader

HEADER, OFFSET, DATA = b"\x0a", b"\x10", b"\x1a"

headers = st.builds(
    TensorHeader,
    name=st.text(max_size=20),
    dtype=st.sampled_from([0, *dtypes.TORCH_BY_WIRE]),
    shape=st.lists(st.integers(0, 2**64 - 1), max_size=4),
    dims=st.lists(st.text(max_size=5), max_size=4),
    total_bytes=st.integers(0, 2**64 - 1),
    etag=st.text(max_size=40),
)
offsets = st.integers(0, 2**64 - 1) | st.sampled_from([2 ** (7 * n) + d for n in range(1, 10) for d in (-1, 0)])
datas = st.binary(max_size=300)
chunks = st.builds(TensorChunk, header=st.none() | headers, offset=offsets, data=datas)


def read_by_hand(message: bytes) -> TensorChunk | None:
    """What the assembler makes of a message: it reads the header itself. None: this is no message."""
    try:
        got = frames.parse(message)
        head = None if got.header is None else TensorHeader.FromString(got.header)
    except DecodeError:
        return None
    shared = SharedPiece(slot=got.shared[0], size=got.shared[1]) if got.shared else None
    return TensorChunk(header=head, offset=got.offset, data=bytes(got.data), shared=shared)


def read_by_generated_code(message: bytes) -> TensorChunk | None:
    """The same without fields that this schema does not know at the top."""
    try:
        chunk = TensorChunk.FromString(message)
    except DecodeError:
        return None
    shared = SharedPiece(slot=chunk.shared.slot, size=chunk.shared.size) if chunk.HasField("shared") else None
    header = chunk.header if chunk.HasField("header") else None
    return TensorChunk(header=header, offset=chunk.offset, data=chunk.data, shared=shared)


def assert_read_alike(message: bytes) -> None:
    assert read_by_hand(message) == read_by_generated_code(message)


def long_varint(number: int, n_bytes: int) -> bytes:
    """A number in more bytes than it needs."""
    return bytes([number & 0x7F | 0x80, *[0x80] * (n_bytes - 2), 0])


# Writing


@given(st.none() | headers, offsets, datas)
@example(None, 0, b"")
@example(TensorHeader(), 0, b"")
@example(TensorHeader(name="x" * 127), 127, b"y" * 127)
@example(TensorHeader(name="x" * 126), 128, b"y" * 128)
@example(None, 2**64 - 1, b"z" * 16_384)
@settings(deadline=None)
def test_a_frame_is_what_generated_code_serializes(header: TensorHeader | None, offset: int, data: bytes) -> None:
    wanted = TensorChunk(header=header, offset=offset, data=data).SerializeToString()
    serialized = None if header is None else header.SerializeToString()
    assert frames.frame(serialized, offset, data) == wanted
    assert frames.frame(serialized, offset, memoryview(data)) == wanted


def test_a_frame_of_megabytes_is_what_generated_code_serializes() -> None:
    data = torch.arange(2**20, dtype=torch.int32)
    wanted = TensorChunk(offset=2**40, data=data.numpy().tobytes()).SerializeToString()
    assert frames.frame(None, 2**40, frames.bytes_of(data)) == wanted


# Reading


@given(chunks)
@settings(deadline=None)
def test_what_generated_code_serializes_is_read(chunk: TensorChunk) -> None:
    got = frames.parse(chunk.SerializeToString())
    assert got.header == (chunk.header.SerializeToString() if chunk.HasField("header") else None)
    assert got.offset == chunk.offset
    assert bytes(got.data) == chunk.data


@given(chunks)
@settings(deadline=None)
def test_a_frame_comes_back(chunk: TensorChunk) -> None:
    header = chunk.header.SerializeToString() if chunk.HasField("header") else None
    got = frames.parse(frames.frame(header, chunk.offset, chunk.data))
    assert (got.header, got.offset, bytes(got.data)) == (header, chunk.offset, chunk.data)


@given(st.none() | headers, offsets, st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_data_in_shared_memory_are_named_as_generated_code_does(
    header: TensorHeader | None, offset: int, slot: int, size: int
) -> None:
    encoded = None if header is None else header.SerializeToString()
    message = frames.shared_frame(encoded, offset, slot, size)
    chunk = TensorChunk(header=header, offset=offset, shared=SharedPiece(slot=slot, size=size))
    assert message == chunk.SerializeToString()
    got = frames.parse(message)
    assert (got.header, got.offset, bytes(got.data), got.shared) == (encoded, offset, b"", (slot, size))


def test_data_are_read_where_they_arrived() -> None:
    message = frames.frame(TensorHeader(name="value").SerializeToString(), 5, b"elements")
    got = frames.parse(message)
    assert isinstance(got.data, memoryview)
    assert got.data.obj is message
    assert got.data.readonly


def test_an_empty_message_is_a_chunk_without_anything() -> None:
    assert frames.parse(b"") == frames.Frame(None, 0, b"")


def test_an_empty_header_is_not_the_same_as_none() -> None:
    assert frames.parse(b"\x0a\x00").header == b""
    assert frames.parse(b"\x10\x01").header is None


unknown_fields = st.sampled_from(
    [
        b"\x28\x07",  # 5: a varint
        b"\x28" + b"\xff" * 9 + b"\x01",
        b"\x2a\x03abc",  # 5: bytes
        b"\x2d\x01\x02\x03\x04",  # 5: 32 bits
        b"\x29\x01\x02\x03\x04\x05\x06\x07\x08",  # 5: 64 bits
        b"\x2b\x30\x01\x2c",  # 5: a group with a field in it
        b"\xf8\xff\xff\xff\x0f\x00",  # the last number there is
        b"\x08\x05",  # 1, 3 and 4 with types that they do not have
        b"\x18\x05",
        b"\x20\x07",
        b"\x12\x01x",  # 2 as bytes
    ]
)
known_fields = st.one_of(
    headers.map(lambda header: TensorChunk(header=header).SerializeToString()),
    st.just(b"\x0a\x00"),
    offsets.map(lambda offset: TensorChunk(offset=offset).SerializeToString()),
    st.just(b"\x10\x00"),
    datas.map(lambda data: TensorChunk(data=data).SerializeToString()),
    st.just(b"\x1a\x00"),
    st.builds(SharedPiece, slot=st.integers(0, 2**32 - 1), size=st.integers(0, 2**32 - 1)).map(
        lambda shared: TensorChunk(shared=shared).SerializeToString()
    ),
)
messages_of_any_fields = st.lists(known_fields | unknown_fields, max_size=7).map(b"".join)


@given(st.permutations([b"\x0a\x03\x0a\x01n", b"\x10\x09", b"\x1a\x02ab"]).map(b"".join))
@settings(deadline=None)
def test_fields_may_come_in_any_order(message: bytes) -> None:
    got = frames.parse(message)
    assert (got.header, got.offset, bytes(got.data)) == (b"\x0a\x01n", 9, b"ab")


@given(messages_of_any_fields)
@example(b"\x0a\x03\x0a\x01a\x0a\x03\x32\x01e")  # two headers are merged
@example(b"\x10\x05\x10\x06\x1a\x01a\x1a\x01b")  # of others the last counts
@example(b"\x1a\x01a\x10\x05\x0a\x00")
@example(b"\x0a\x00\x1a\x01a\x20\x07")
@settings(deadline=None)
def test_fields_repeated_unknown_and_in_any_order_are_read_as_generated_code_does(message: bytes) -> None:
    assert read_by_generated_code(message) is not None
    assert_read_alike(message)


def test_an_offset_of_ten_bytes_is_read_as_generated_code_does() -> None:
    for last in (0, 1, 2, 0x7F):
        assert_read_alike(OFFSET + b"\xff" * 9 + bytes([last]))
    assert_read_alike(OFFSET + b"\xff" * 10 + b"\x01")


@pytest.mark.parametrize("n_bytes", range(2, 12))
def test_an_offset_in_more_bytes_than_it_needs_is_read_as_generated_code_does(n_bytes: int) -> None:
    assert_read_alike(OFFSET + long_varint(5, n_bytes) + b"\x1a\x01x")


@pytest.mark.parametrize("n_bytes", range(2, 12))
@pytest.mark.parametrize("tag", [HEADER, DATA], ids=["header", "data"])
def test_a_length_in_more_bytes_than_it_needs_is_read_as_generated_code_does(tag: bytes, n_bytes: int) -> None:
    assert_read_alike(tag + long_varint(2, n_bytes) + b"\x28\x07")


@pytest.mark.parametrize("length", [3, 2**31 - 1, 2**31, 2**32 + 2, 2**62, 2**63, 2**64 - 1], ids=hex)
@pytest.mark.parametrize("tag", [HEADER, DATA], ids=["header", "data"])
def test_a_length_past_the_end_is_refused(tag: bytes, length: int) -> None:
    with pytest.raises(DecodeError):
        frames.parse(tag + frames._varint(length) + b"\x28\x07")


@given(chunks.filter(lambda chunk: chunk.ByteSize() > 0), st.data())
@settings(deadline=None)
def test_a_message_that_was_cut_is_read_as_generated_code_does(chunk: TensorChunk, data: st.DataObject) -> None:
    message = chunk.SerializeToString()
    assert_read_alike(message[: data.draw(st.integers(0, len(message) - 1), label="bytes left")])


@given(headers, datas, st.data())
@settings(deadline=None)
def test_a_message_that_was_changed_is_read_as_generated_code_does(
    header: TensorHeader, elements: bytes, data: st.DataObject
) -> None:
    message = bytearray(TensorChunk(header=header, offset=300, data=elements).SerializeToString())
    position = data.draw(st.integers(0, len(message) - 1), label="position")
    message[position] = data.draw(st.integers(0, 255), label="byte")
    assert_read_alike(bytes(message))


@given(st.binary(max_size=40))
@example(b"\x0a\x05abc")
@example(b"\x0a\x02\x0a\x05")
@example(b"\x0a\x01\x00")
@example(b"\x0a\x04\x0a\x02\xff\xfe")  # a name that is not UTF-8
@example(b"\x1a\x02a")
@example(b"\x1a")
@example(b"\x10")
@example(b"\x10\x80")
@example(b"\x00")
@example(b"\x0c")
@settings(deadline=None, max_examples=1000)
def test_any_bytes_are_read_or_refused_as_generated_code_does(message: bytes) -> None:
    assert_read_alike(message)


likely_bytes = st.sampled_from(b"\x00\x01\x02\x03\x05\x0a\x10\x1a\x20\x22\x32\x7f\x80\xff")


@given(st.lists(likely_bytes, max_size=12).map(bytes))
@settings(deadline=None, max_examples=2000)
def test_bytes_that_look_like_fields_are_read_or_refused_as_generated_code_does(message: bytes) -> None:
    assert_read_alike(message)


# The memory of tensors


@pytest.mark.parametrize("dtype", dtypes.WIRE_BY_TORCH, ids=str)
def test_bytes_of_a_tensor_are_its_memory(dtype: torch.dtype) -> None:
    tensor = torch.ones(2, 3).to(dtype)
    held = frames.bytes_of(tensor)
    assert held.nbytes == tensor.nbytes
    assert held.itemsize == 1
    assert bytes(held) == bytes(tensor.reshape(-1).view(torch.uint8).tolist())
    held[:] = bytes(tensor.nbytes)
    assert not tensor.any()
    tensor.fill_(1)
    assert any(held)


def test_bytes_of_a_part_begin_where_it_begins() -> None:
    tensor = torch.arange(6, dtype=torch.uint8).reshape(3, 2)
    assert bytes(frames.bytes_of(tensor[1:])) == b"\x02\x03\x04\x05"


@pytest.mark.parametrize("shape", [(0,), (2, 0, 3)], ids=str)
def test_bytes_of_nothing_can_be_written_to(shape: tuple[int, ...]) -> None:
    held = frames.bytes_of(torch.empty(shape))
    assert len(held) == 0
    assert not held.readonly
    held[0:0] = b""


def test_a_scalar_has_bytes_too() -> None:
    assert bytes(frames.bytes_of(torch.tensor(258, dtype=torch.int16))) == b"\x02\x01"


def test_bytes_do_not_keep_a_tensor() -> None:
    tensor = torch.zeros(3)
    storage = weakref.ref(tensor)
    held = frames.bytes_of(tensor)
    del tensor
    gc.collect()
    assert storage() is None
    del held


def test_bytes_of_a_tensor_with_gaps_are_refused() -> None:
    with pytest.raises(AssertionError, match="raw bytes are those of a contiguous tensor"):
        frames.bytes_of(torch.zeros(2, 3).T)
