"""Streams put together: one tensor or many, interrupted anywhere, begun again, and refused where they make no sense."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.models.tensors import any_tensors, assert_same_bits, bits
from transparent_llm.errors import TooLargeError
from transparent_llm.wire import dtypes, frames
from transparent_llm.wire._gen.tensor_pb2 import DTYPE_F32, TensorChunk, TensorHeader
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import Part
from transparent_llm.wire.protocol_error import ProtocolError


def head_of(tensor: torch.Tensor, etag: str = "one", name: str = "value") -> TensorHeader:
    return TensorHeader(
        name=name,
        dtype=dtypes.WIRE_BY_TORCH[tensor.dtype],
        shape=tensor.shape,
        dims=[f"axis{i}" for i in range(tensor.ndim)],
        total_bytes=tensor.nbytes,
        etag=etag,
    )


def sent(
    tensor: torch.Tensor, chunk_bytes: int, offset: int = 0, etag: str = "one", name: str = "value"
) -> list[TensorChunk]:
    """The messages of one tensor from a byte on, made by generated code."""
    data = bits(tensor)
    starts = range(offset, len(data), chunk_bytes) or (offset,)
    messages = [TensorChunk(offset=start, data=data[start : start + chunk_bytes]) for start in starts]
    messages[0].header.CopyFrom(head_of(tensor, etag, name))
    return messages


def sent_all(
    tensors: Sequence[torch.Tensor], chunk_bytes: int, offset: int = 0, etag: str = "one"
) -> list[TensorChunk]:
    """The messages of several tensors from a byte of the whole stream on."""
    messages, start = [], 0
    for number, tensor in enumerate(tensors):
        end = start + tensor.nbytes
        is_last = number == len(tensors) - 1
        if end > offset or start == end == offset or (is_last and end == offset):
            messages += sent(tensor, chunk_bytes, max(0, offset - start), etag, f"value{number}")
        start = end
    return messages


def assembled(messages: Iterable[TensorChunk], assembler: Assembler | None = None) -> Assembler:
    assembler = assembler or Assembler()
    for message in messages:
        assembler.add(message.SerializeToString())
    return assembler


def only(assembler: Assembler) -> torch.Tensor:
    ((_, tensor),) = assembler.tensors()
    return tensor


def refusal(messages: Iterable[TensorChunk]) -> str:
    with pytest.raises(ProtocolError) as refused:
        assembled(messages).tensors()
    return str(refused.value)


# One tensor


def test_an_assembler_knows_how_far_it_is() -> None:
    assembler, messages = Assembler(), sent(torch.zeros(5, dtype=torch.uint8), chunk_bytes=4)
    seen = [(assembler.received, assembler.total_bytes, assembler.etag, assembler.has_begun, assembler.complete)]
    for message in messages:
        assembled([message], assembler)
        seen.append(
            (assembler.received, assembler.total_bytes, assembler.etag, assembler.has_begun, assembler.complete)
        )
    assert seen == [(0, 0, "", False, False), (4, 5, "one", True, False), (5, 5, "one", True, True)]


@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (0, 0), (1, 1, 1, 1), (2, 3)], ids=str)
@pytest.mark.parametrize("dtype", dtypes.WIRE_BY_TORCH, ids=str)
def test_scalars_and_empty_tensors_come_back(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = torch.ones(shape, dtype=dtype)
    assert_same_bits(only(assembled(sent(tensor, chunk_bytes=3))), tensor)


def test_a_chunk_may_end_within_an_element() -> None:
    tensor = torch.tensor([[1.0, 2.0, -math.inf]], dtype=torch.float16)
    assert_same_bits(only(assembled(sent(tensor, chunk_bytes=5))), tensor)


def test_a_header_may_come_before_any_data() -> None:
    tensor = torch.tensor([7, 8], dtype=torch.uint8)
    messages = [
        TensorChunk(header=head_of(tensor)),
        TensorChunk(data=b"\x07"),
        TensorChunk(offset=1, data=b"\x08"),
    ]
    assert_same_bits(only(assembled(messages)), tensor)


def test_an_assembled_tensor_can_be_written_to() -> None:
    tensor = only(assembled(sent(torch.zeros(3), chunk_bytes=5)))
    assert (tensor + 1).tolist() == tensor.add_(1).tolist()


def test_a_large_tensor_that_lies_in_memory_of_its_own_can_be_written_to() -> None:
    tensor = torch.arange(2**20 + 3, dtype=torch.int32)
    data = tensor.numpy().tobytes()
    message = TensorChunk(header=head_of(tensor), data=data)
    got = only(assembled([message]))
    assert torch.equal(got, tensor)
    assert torch.equal(got.add_(1), tensor + 1)


# Several


def test_tensors_come_in_order_under_their_names() -> None:
    first, second = torch.arange(3), torch.ones(2, 2)
    got = assembled([*sent(first, 5, name="a"), *sent(second, 100, name="b")]).tensors()
    assert [name for name, _ in got] == ["a", "b"]
    assert_same_bits(got[0][1], first)
    assert_same_bits(got[1][1], second)


def test_two_tensors_with_one_name_are_two() -> None:
    same = torch.arange(3)
    assert [name for name, _ in assembled([*sent(same, 5), *sent(same, 5)]).tensors()] == ["value", "value"]


def test_a_tensor_that_begins_before_the_last_one_is_there_is_refused() -> None:
    first, second = torch.zeros(6, dtype=torch.uint8), torch.zeros(2)
    assert refusal([*sent(first, 4)[:1], *sent(second, 8, name="next")]) == "'next' begins at byte 4 of 6"


def test_total_bytes_are_those_of_all_headers_so_far() -> None:
    assembler = assembled(sent(torch.zeros(2), 100))
    assembled(sent(torch.zeros(3), 4)[:1], assembler)
    assert (assembler.received, assembler.total_bytes) == (12, 20)


# Interruptions


def test_a_second_stream_with_the_same_etag_goes_on() -> None:
    tensor = torch.arange(7, dtype=torch.int16)
    assembler = assembled(sent(tensor, chunk_bytes=5)[:1])
    assembler.resume()
    assembled(sent(tensor, chunk_bytes=4, offset=5), assembler)
    assert_same_bits(only(assembler), tensor)


def test_a_second_stream_with_a_new_etag_starts_again() -> None:
    old, new = torch.zeros(4, dtype=torch.int16), torch.ones(2, 3)
    assembler = assembled(sent(old, chunk_bytes=5)[:1])
    assembler.resume()
    assembled(sent(new, chunk_bytes=5, etag="two"), assembler)
    assert_same_bits(only(assembler), new)
    assert assembler.etag == "two"
    assert assembler.received == new.nbytes


def test_a_stream_that_broke_off_at_its_end_goes_on_with_a_header_alone() -> None:
    tensor = torch.arange(3, dtype=torch.uint8)
    assembler = assembled(sent(tensor, chunk_bytes=5))
    assembler.resume()
    assembled(sent(tensor, chunk_bytes=5, offset=3), assembler)
    assert_same_bits(only(assembler), tensor)


def test_a_resumed_stream_from_the_wrong_byte_is_refused() -> None:
    tensor = torch.zeros(6, dtype=torch.uint8)
    assembler = assembled(sent(tensor, chunk_bytes=4)[:1])
    assembler.resume()
    with pytest.raises(ProtocolError, match=r"^chunk 3\.\.6 after byte 4 of 6$"):
        assembled(sent(tensor, chunk_bytes=4, offset=3), assembler)


def test_another_etag_without_a_cut_is_refused() -> None:
    assembler = assembled(sent(torch.zeros(2), chunk_bytes=8))
    with pytest.raises(ProtocolError, match=r"^'value' has a different etag than its stream$"):
        assembled(sent(torch.ones(2), chunk_bytes=8, etag="two"), assembler)
    assert_same_bits(only(assembler), torch.zeros(2))


def test_a_resumed_stream_without_a_header_is_refused() -> None:
    assembler = assembled(sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)[:1])
    assembler.resume()
    with pytest.raises(ProtocolError, match=r"^the stream began without a header$"):
        assembled([TensorChunk(offset=4, data=b"ab")], assembler)


def test_another_tensor_under_the_etag_of_the_interrupted_one_is_refused() -> None:
    assembler = assembled(sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)[:1])
    assembler.resume()
    with pytest.raises(ProtocolError, match=r"^a header with the etag of the broken stream describes another tensor$"):
        assembled(sent(torch.zeros(6, dtype=torch.int8), chunk_bytes=4, offset=4), assembler)


def test_more_tensors_than_there_can_be_are_refused() -> None:
    empty, assembler = torch.empty(0), Assembler(most=2)
    assembled(sent_all([empty, empty], 8), assembler)
    with pytest.raises(ProtocolError, match="'value' begins after 2 tensors"):
        assembled(sent(empty, 8), assembler)


def test_a_stream_that_begins_anew_counts_anew() -> None:
    values = [torch.arange(4.0), torch.arange(2.0)]
    assembler = assembled(sent_all(values, 8)[:3], Assembler(most=2))
    assembler.resume()
    assembled(sent_all(values, 8, etag="two"), assembler)
    assert len(assembler.tensors()) == 2


def test_what_was_received_survives_a_refused_header() -> None:
    tensor = torch.arange(4, dtype=torch.uint8)
    assembler = assembled(sent(tensor, chunk_bytes=3)[:1])
    with pytest.raises(ProtocolError):
        assembled([TensorChunk(header=TensorHeader())], assembler)
    assembler.resume()
    assembled(sent(tensor, chunk_bytes=3, offset=3), assembler)
    assert_same_bits(only(assembler), tensor)


# Refusals


def test_a_stream_without_a_header_is_refused() -> None:
    assert refusal([TensorChunk(data=b"\x01")]) == "the stream began without a header"


def test_bytes_that_are_no_message_are_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^a message that is not a TensorChunk: "):
        Assembler().add(b"\x0a\xff")


def test_a_header_that_is_no_message_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^a message that is not a TensorChunk: "):
        Assembler().add(b"\x0a\x02\x0a\x05")


def test_a_gap_is_refused() -> None:
    first, _, third = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=2)
    assert refusal([first, third]) == "chunk 4..6 after byte 2 of 6"


def test_a_repeated_chunk_is_refused() -> None:
    first, second, _ = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=2)
    assert refusal([first, second, second]) == "chunk 2..4 after byte 4 of 6"


def test_more_data_than_announced_is_refused() -> None:
    first, _ = sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)
    assert refusal([first, TensorChunk(offset=4, data=b"\0" * 3)]) == "chunk 4..7 after byte 4 of 6"


def test_a_stream_that_ends_early_is_refused() -> None:
    assert refusal(sent(torch.zeros(6, dtype=torch.uint8), chunk_bytes=4)[:1]) == "the stream ended at byte 4 of 6"


def test_a_stream_without_any_message_is_refused() -> None:
    assert refusal([]) == "the stream ended at byte 0 of 0"


@pytest.mark.parametrize("dtype", [b"\x32\x01x", b"\x10\x63"], ids=["unspecified", "unknown"])
def test_a_header_with_an_unknown_dtype_is_refused(dtype: bytes) -> None:
    head = TensorHeader.FromString(dtype)
    assert refusal([TensorChunk(header=head)]) == f"unknown dtype {int(head.dtype)} in the header"


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
    head = TensorHeader(dtype=DTYPE_F32, shape=shape, dims=dims, total_bytes=total_bytes)
    assert refusal([TensorChunk(header=head)]) == f"header contradicts itself: {text}"


@pytest.mark.parametrize("shape", [[0, 2**63], [0, 2**62, 2**62]], ids=str)
def test_a_header_with_an_impossible_axis_is_refused(shape: list[int]) -> None:
    head = TensorHeader(dtype=DTYPE_F32, shape=shape, dims=[f"axis{i}" for i in range(len(shape))])
    assert refusal([TensorChunk(header=head)]) == f"no tensor can have the shape {shape}"


@pytest.mark.parametrize("n_bytes", [2**50, 2**66], ids=str)
def test_a_header_that_announces_more_than_any_memory_is_refused(n_bytes: int) -> None:
    shape = [n_bytes // 2**10 // 4, 2**10]
    head = TensorHeader(dtype=DTYPE_F32, shape=shape, dims=["a", "b"], total_bytes=n_bytes % 2**64)
    text = refusal([TensorChunk(header=head)])
    assert text.startswith(("no memory for the ", "no tensor can have the shape "))


# Any tensors, any interruption


@given(st.lists(any_tensors(), min_size=1, max_size=4), st.integers(1, 700))
@settings(deadline=None)
def test_any_tensors_come_back_from_chunks_of_any_size(tensors: list[torch.Tensor], chunk_bytes: int) -> None:
    got = assembled(sent_all(tensors, chunk_bytes)).tensors()
    assert len(got) == len(tensors)
    for (_, arrived), tensor in zip(got, tensors, strict=True):
        assert_same_bits(arrived, tensor)


@given(st.lists(any_tensors(), min_size=1, max_size=4), st.integers(1, 50), st.data())
@settings(deadline=None)
def test_any_tensors_come_back_after_interruptions_anywhere(
    tensors: list[torch.Tensor], chunk_bytes: int, data: st.DataObject
) -> None:
    assembler = Assembler()
    for _ in range(data.draw(st.integers(0, 3), label="interruptions")):
        messages = sent_all(tensors, chunk_bytes, assembler.received)
        arriving = data.draw(st.integers(0, len(messages)), label="messages before the interruption")
        assembled(messages[:arriving], assembler)
        assembler.resume()
    assembled(sent_all(tensors, chunk_bytes, assembler.received), assembler)
    got = assembler.tensors()
    assert [name for name, _ in got] == [f"value{number}" for number in range(len(tensors))]
    for (_, arrived), tensor in zip(got, tensors, strict=True):
        assert_same_bits(arrived, tensor)


@given(any_tensors(), any_tensors(), st.integers(0, 50), st.integers(1, 50))
@settings(deadline=None)
def test_any_restart_gives_the_new_bits(
    old: torch.Tensor, new: torch.Tensor, before_interruption: int, chunk_bytes: int
) -> None:
    assembler = assembled(sent(old, chunk_bytes)[:before_interruption])
    assembler.resume()
    assembled(sent(new, chunk_bytes, etag="two"), assembler)
    assert_same_bits(only(assembler), new)


# Several tensors that are one value


def test_parts_of_a_value_must_fit_together() -> None:
    part = Part("a", ("axis0",)), Part("b", ("axis0",))
    one, two = (Expected(name, (), {}, parts=part) for name in ("one", "two"))
    names = ("one.a", "one.b", "two.a", "two.b")
    messages = [message for name in names for message in sent(torch.zeros(3), 12, name=name)]
    assert len(assembled(messages, Assembler(24, answer=Answer([one, two]))).tensors()) == 4
    with pytest.raises(TooLargeError, match=r"^one\.b .*24 bytes"):
        assembled(messages, Assembler(23, answer=Answer([one, two])))


# Shared memory


def in_shared_memory(tensor: torch.Tensor, sizes: Sequence[int]) -> list[bytes]:
    """The messages of a tensor of which every second piece lies in shared memory."""
    messages, offset, data = [], 0, bits(tensor)
    for number, size in enumerate(sizes):
        header = head_of(tensor).SerializeToString() if not number else None
        if number % 2:
            messages.append(frames.frame(header, offset, data[offset : offset + size]))
        else:
            messages.append(frames.shared_frame(header, offset, number, size))
        offset += size
    return messages


def test_data_in_shared_memory_are_taken_to_where_they_belong() -> None:
    tensor, sizes = torch.arange(10.0), [8, 12, 4, 16]
    taken = []

    def take(slot: int, target: memoryview) -> None:
        start = sum(sizes[:slot])
        target[:] = bits(tensor)[start : start + len(target)]
        taken.append((slot, len(target)))

    assembler = Assembler()
    for message in in_shared_memory(tensor, sizes):
        assembler.add(message, take)
    assert_same_bits(assembler.tensors()[0][1], tensor)
    assert taken == [(0, 8), (2, 4)]
    assert assembler.received == 40


def test_shared_memory_that_nobody_offered_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"^data in shared memory that was not offered$"):
        Assembler().add(in_shared_memory(torch.arange(10.0), [40])[0])


def test_data_in_both_places_are_refused() -> None:
    message = frames.shared_frame(head_of(torch.zeros(2)).SerializeToString(), 0, 0, 8) + b"\x1a\x01x"
    with pytest.raises(ProtocolError, match="shared memory"):
        Assembler().add(message, lambda *_: None)


def test_a_piece_in_shared_memory_past_the_end_is_refused() -> None:
    message = frames.shared_frame(head_of(torch.zeros(2)).SerializeToString(), 0, 0, 9)
    with pytest.raises(ProtocolError, match=r"^chunk 0\.\.9 after byte 0 of 8$"):
        Assembler().add(message, lambda *_: None)
