"""From values to messages: sliced, cast, divided into chunks, several in a stream, resumed, as factors."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
import torch

from transparent_llm.errors import InternalError, InvalidRequestError
from transparent_llm.wire._gen.tensor_pb2 import (
    DTYPE_BF16,
    DTYPE_F16,
    DTYPE_F32,
    DTYPE_I64,
    ENCODING_DENSE,
    ENCODING_FACTORED,
    AxisSlice,
    TensorChunk,
    TensorHeader,
    TensorOptions,
)
from transparent_llm.wire.assembler import Assembler
from transparent_llm.wire.form import Form, delivery_of, form_of
from transparent_llm.wire.methods import Method, Part
from transparent_llm_server.models.values.value import Computed, Factor, Found, Piece, Stored, Value
from transparent_llm_server.streaming.chunks import (
    ChunkSizes,
    Outgoing,
    outgoing,
    outgoing_parts,
    resume_offset,
    stream,
)
from transparent_llm_server.streaming.chunks import etag as etag_of_form
from transparent_llm_server.streaming.host_copy import on_host

SIZES = ChunkSizes(default=8, most=16)
DIMS = ("batch", "pos")


def computed(value: Value, piece: Piece) -> torch.Tensor:
    return piece.compute()


def sent(parts: Iterable[Outgoing], options: TensorOptions, tag: str = "tag") -> list[TensorChunk]:
    offset = resume_offset(delivery_of(options), tag)
    made = stream(parts, tag, offset, SIZES.choose(options.max_chunk_bytes), computed)
    return [TensorChunk.FromString(message) for message in made]


def messages(value: torch.Tensor, options: TensorOptions | None = None) -> list[TensorChunk]:
    options = options or TensorOptions()
    return sent(outgoing("value", DIMS[: value.ndim], Stored(value), form_of(options)), options)


def etag(identity: str, name: str, arguments: object, options: TensorOptions) -> str:
    return etag_of_form(identity, name, arguments, form_of(options))


def received(chunks: Iterable[TensorChunk]) -> torch.Tensor:
    assembler = Assembler()
    for chunk in chunks:
        assembler.add(chunk.SerializeToString())
    ((_, tensor),) = assembler.tensors()
    return tensor


def data_lengths(options: TensorOptions) -> list[int]:
    return [len(chunk.data) for chunk in messages(torch.zeros(40, dtype=torch.uint8), options)]


def refusal(value: torch.Tensor, options: TensorOptions) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        messages(value, options)
    return refused.value


# The way of a value


def test_a_value_is_sliced_then_cast_then_divided_into_chunks() -> None:
    value = torch.tensor([[1.0, 2.0, 4.0], [8.0, -2.0, 0.5]])
    options = TensorOptions(slices=[AxisSlice(axis="pos", start=1)], dtype=DTYPE_F16, max_chunk_bytes=5)
    header = TensorHeader(name="value", dtype=DTYPE_F16, shape=[2, 2], dims=DIMS, total_bytes=8, etag="tag")
    assert messages(value, options) == [
        TensorChunk(header=header, data=b"\x00\x40\x00\x44\x00"),
        TensorChunk(offset=5, data=b"\xc0\x00\x38"),
    ]


@pytest.mark.parametrize("shape", [(), (0,), (2, 0), (3,), (4, 5)], ids=str)
@pytest.mark.parametrize("dtype", [torch.bool, torch.int64, torch.bfloat16, torch.float32], ids=str)
def test_a_value_without_options_arrives_as_it_is_held(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    value = torch.ones(shape, dtype=dtype)
    got = received(messages(value))
    assert got.dtype is dtype
    assert torch.equal(got, value)


def test_a_value_that_lies_crosswise_in_memory_arrives_upright() -> None:
    value = torch.arange(12.0).reshape(3, 4).T
    assert torch.equal(received(messages(value)), value)


def test_a_value_of_a_computation_with_gradients_arrives() -> None:
    value = torch.ones(2, requires_grad=True) * 3
    assert received(messages(value)).tolist() == [3.0, 3.0]


def test_nothing_is_copied_before_it_is_cut() -> None:
    more_than_any_memory = torch.tensor(1.5).expand(2**40, 2**20)
    slices = [AxisSlice(axis="batch", start=5, stop=6), AxisSlice(axis="pos", stop=-1, step=2**19)]
    assert received(messages(more_than_any_memory, TensorOptions(slices=slices))).tolist() == [[1.5, 1.5]]


def test_a_slice_that_does_not_fit_is_refused() -> None:
    options = TensorOptions(slices=[AxisSlice(axis="head")])
    assert refusal(torch.zeros(2, 2), options).message == "there is no axis 'head'; this tensor has batch, pos"


def test_a_dtype_that_does_not_fit_is_refused() -> None:
    error = refusal(torch.zeros(2, dtype=torch.int64), TensorOptions(dtype=DTYPE_F32))
    assert error.message == "a I64 tensor cannot be sent as F32; allowed: I64"


def test_a_value_that_cannot_travel_is_refused() -> None:
    assert refusal(torch.zeros(2, dtype=torch.complex64), TensorOptions()).reason == "INVALID_DTYPE"


# Chunk sizes


@pytest.mark.parametrize(
    ("requested", "got"), [(0, 8), (1, 1), (8, 8), (9, 9), (16, 16), (17, 16), (2**32 - 1, 16)], ids=str
)
def test_a_request_gets_the_size_it_asks_for_up_to_the_largest(requested: int, got: int) -> None:
    assert SIZES.choose(requested) == got


def test_a_default_above_the_largest_is_lowered_too() -> None:
    assert ChunkSizes(default=32, most=16).choose(0) == 16


def test_chunks_have_the_default_size() -> None:
    assert data_lengths(TensorOptions()) == [8] * 5


def test_chunks_have_the_size_that_was_asked_for() -> None:
    assert data_lengths(TensorOptions(max_chunk_bytes=12)) == [12, 12, 12, 4]


def test_chunks_are_never_larger_than_the_server_allows() -> None:
    assert data_lengths(TensorOptions(max_chunk_bytes=1000)) == [16, 16, 8]


# Etags


def test_equal_requests_have_one_etag() -> None:
    make = [TensorOptions(slices=[AxisSlice(axis="pos", start=0)], dtype=DTYPE_F16) for _ in range(2)]
    assert etag("run", "logits", (1, None), make[0]) == etag("run", "logits", (1, None), make[1])


def test_size_and_resumption_do_not_change_the_etag() -> None:
    resumed = TensorOptions(dtype=DTYPE_F16, max_chunk_bytes=7, resume_offset=99, etag="old")
    assert etag("run", "logits", (), resumed) == etag("run", "logits", (), TensorOptions(dtype=DTYPE_F16))


def test_whatever_changes_the_bits_changes_the_etag() -> None:
    plain = TensorOptions()
    slices = [
        [AxisSlice(axis="pos", start=1)],
        [AxisSlice(axis="pos", stop=1)],
        [AxisSlice(axis="pos", step=1)],
        [AxisSlice(axis="batch", start=1)],
        [AxisSlice(axis="batch", start=1), AxisSlice(axis="pos", start=1)],
    ]
    tags = [
        etag("run", "logits", (), plain),
        etag("other run", "logits", (), plain),
        etag("run", "residual_in", (0,), plain),
        etag("run", "residual_out", (0,), plain),
        etag("run", "residual_out", (1,), plain),
        etag("run", "attention_output", (0, 1, 2, None), plain),
        etag("run", "attention_output", (0, 1, 2, 0), plain),
        etag("run", "unembed", (b"a", True), plain),
        etag("run", "unembed", (b"a", False), plain),
        etag("run", "logits", (), TensorOptions(dtype=DTYPE_F16)),
        etag("run", "logits", (), TensorOptions(dtype=DTYPE_BF16)),
        *(etag("run", "logits", (), TensorOptions(slices=each)) for each in slices),
    ]
    assert len(set(tags)) == len(tags)


# Resuming


@pytest.mark.parametrize("offset", [1, 7, 8, 39, 40])
def test_a_stream_with_the_same_bits_goes_on_where_it_was_interrupted(offset: int) -> None:
    value = torch.arange(5)
    first, *rest = messages(value, TensorOptions(resume_offset=offset, etag="tag"))
    assert (first.offset, first.header.etag, first.header.total_bytes) == (offset, "tag", 40)
    data = first.data + b"".join(chunk.data for chunk in rest)
    assert data == bytes(value.view(torch.uint8).tolist())[offset:]


def test_offsets_count_the_bytes_that_are_sent_not_those_that_are_held() -> None:
    value = torch.tensor([[9.0, 1.0, 2.0]])
    options = TensorOptions(slices=[AxisSlice(axis="pos", start=1)], dtype=DTYPE_BF16, resume_offset=3, etag="tag")
    assert [(chunk.offset, chunk.data) for chunk in messages(value, options)] == [(3, b"\x40")]


@pytest.mark.parametrize("offset", [0, 8, 40, 41, 2**64 - 1])
def test_a_stream_with_other_bits_starts_again(offset: int) -> None:
    first = messages(torch.arange(5), TensorOptions(resume_offset=offset, etag="of another run"))[0]
    assert (first.offset, first.header.etag) == (0, "tag")


def test_an_etag_without_an_offset_starts_at_the_beginning() -> None:
    assert messages(torch.arange(5), TensorOptions(etag="tag"))[0].offset == 0


@pytest.mark.parametrize("offset", [41, 2**64 - 1])
def test_an_offset_past_the_end_is_refused(offset: int) -> None:
    error = refusal(torch.arange(5), TensorOptions(resume_offset=offset, etag="tag", dtype=DTYPE_I64))
    assert error.message == f"resume_offset {offset} is past the end: 40 bytes"
    assert error.reason == "INVALID_RESUME"
    assert error.metadata == {"got": str(offset), "total_bytes": "40"}


def test_an_offset_without_an_etag_is_refused() -> None:
    error = refusal(torch.arange(5), TensorOptions(resume_offset=8))
    assert error.message == "resume_offset 8 needs the etag of the interrupted stream"
    assert error.reason == "INVALID_RESUME"
    assert error.metadata == {"got": "8", "total_bytes": "0"}


# Several tensors in one stream


class Log:
    """Values that note which piece is computed."""

    def __init__(self) -> None:
        self.computed: list[str] = []

    def part(self, name: str, n_bytes: int) -> Outgoing:
        def compute() -> torch.Tensor:
            self.computed.append(name)
            return torch.full((n_bytes,), ord(name), dtype=torch.uint8)

        return Outgoing(name, ("pos",), Computed((n_bytes,), torch.uint8, compute), torch.uint8)


def test_every_tensor_has_a_header_and_offsets_of_its_own() -> None:
    log = Log()
    got = sent([log.part("a", 9), log.part("b", 0), log.part("c", 2)], TensorOptions())
    assert [(chunk.header.name, chunk.offset, chunk.data) for chunk in got] == [
        ("a", 0, b"aaaaaaaa"),
        ("", 8, b"a"),
        ("b", 0, b""),
        ("c", 0, b"cc"),
    ]
    assert {chunk.header.etag for chunk in got if chunk.HasField("header")} == {"tag"}


@pytest.mark.parametrize(
    ("offset", "computed_again", "first"),
    [(1, "abc", ("a", 1)), (3, "bc", ("b", 0)), (4, "bc", ("b", 1)), (7, "c", ("c", 0)), (8, "c", ("c", 1))],
)
def test_what_has_arrived_is_not_computed_again(offset: int, computed_again: str, first: tuple[str, int]) -> None:
    log = Log()
    parts = [log.part("a", 3), log.part("b", 4), log.part("c", 5)]
    got = sent(parts, TensorOptions(resume_offset=offset, etag="tag"))
    assert "".join(log.computed) == computed_again
    assert (got[0].header.name, got[0].offset) == first


def test_a_stream_of_which_all_has_arrived_ends_with_the_last_header() -> None:
    log = Log()
    got = sent([log.part("a", 3), log.part("b", 4)], TensorOptions(resume_offset=7, etag="tag"))
    assert [(chunk.header.name, chunk.offset, chunk.data) for chunk in got] == [("b", 4, b"")]
    assert log.computed == []


def test_values_are_computed_when_their_turn_comes() -> None:
    log = Log()
    made = stream([log.part("a", 20), log.part("b", 4)], "tag", 0, 8, computed)
    assert log.computed == []
    for _ in range(3):
        next(made)
    assert log.computed == ["a"]
    next(made)
    assert log.computed == ["a", "b"]


# Factors


class Product(Stored):
    """A value that says it is a product."""

    def factors(self) -> tuple[Factor, ...]:
        return (Factor("left", ("pos",), Stored(torch.ones(2))), Factor("right", (), Stored(torch.tensor(3.0))))


def test_a_product_is_sent_as_its_factors_if_that_is_asked_for() -> None:
    parts = outgoing("value", ("pos",), Product(torch.zeros(2)), Form(factored=True))
    assert [(part.name, part.dims) for part in parts] == [("value.left", ("pos",)), ("value.right", ())]


@pytest.mark.parametrize("options", [TensorOptions(), TensorOptions(encoding=ENCODING_DENSE)], ids=["none", "dense"])
def test_a_product_is_sent_whole_otherwise(options: TensorOptions) -> None:
    assert [part.name for part in outgoing("value", ("pos",), Product(torch.zeros(2)), form_of(options))] == ["value"]


def test_a_value_that_is_no_product_is_sent_whole() -> None:
    parts = outgoing("value", ("pos",), Stored(torch.zeros(2)), Form(factored=True))
    assert [part.name for part in parts] == ["value"]


def test_an_unknown_encoding_is_refused() -> None:
    options = TensorOptions.FromString(b"\x30\x63")
    assert refusal(torch.zeros(2), options).message == "unknown encoding 99; allowed are DENSE and FACTORED"


def test_the_encoding_changes_the_etag() -> None:
    tags = {etag("run", "decomposed_attn", (), TensorOptions(encoding=e)) for e in (0, ENCODING_FACTORED)}
    assert len(tags) == 2


# Several tensors


TOP = Method(
    "top",
    dims=(),
    parts=(
        Part("values", ("pos", "k")),
        Part("ids", ("pos", "k"), torch.int64),
        Part("sums", ("pos",), torch.float32),
        Part("gain", ("k",), torch.float32, optional=True),
    ),
)
VALUES, IDS, SUMS = torch.arange(6.0).view(2, 3), torch.arange(6).view(2, 3), torch.tensor([3.0, 12.0])


def top(gain: torch.Tensor | None = None) -> tuple[Value | None, ...]:
    return (Stored(VALUES), Stored(IDS), Stored(SUMS), None if gain is None else Stored(gain))


def arrived(parts: list[Outgoing]) -> dict[str, torch.Tensor]:
    assembler = Assembler()
    for message in stream(parts, "tag", 0, 8, computed):
        assembler.add(message)
    return dict(assembler.tensors())


def test_a_value_of_several_tensors_is_sent_as_its_parts() -> None:
    parts = outgoing_parts(TOP, top(), Form())
    assert [(part.name, part.dims) for part in parts] == [
        ("top.values", ("pos", "k")),
        ("top.ids", ("pos", "k")),
        ("top.sums", ("pos",)),
    ]
    held = arrived(parts)
    assert torch.equal(held["top.values"], VALUES)
    assert torch.equal(held["top.ids"], IDS)
    assert torch.equal(held["top.sums"], SUMS)


def test_each_part_is_cut_along_the_axes_that_it_has_and_cast_if_its_type_is_open() -> None:
    form = Form((("pos", slice(1, None)), ("k", slice(0, 2))), torch.float64)
    held = arrived(outgoing_parts(TOP, top(torch.ones(3)), form))
    assert held["top.values"].dtype == torch.float64
    assert held["top.values"].tolist() == [[3, 4]]
    assert held["top.ids"].dtype == torch.int64
    assert held["top.ids"].tolist() == [[3, 4]]
    assert held["top.sums"].dtype == torch.float32
    assert held["top.sums"].tolist() == [12]
    assert held["top.gain"].tolist() == [1, 1]


def test_an_optional_part_that_is_a_scalar_has_no_axis_to_cut() -> None:
    *_, gain = outgoing_parts(TOP, top(torch.tensor(2.0)), Form((("k", slice(0, 2)),)))
    assert (gain.name, gain.dims, gain.value.shape) == ("top.gain", (), ())


@pytest.mark.parametrize(("found", "got"), [(Stored(VALUES), "one tensor"), (top()[:2], "2 tensors")])
def test_a_value_that_is_not_its_parts_is_a_broken_model(found: Found, got: str) -> None:
    with pytest.raises(InternalError) as refused:
        outgoing_parts(TOP, found, Form())
    assert str(refused.value) == f"the model gave {got} for top, which consists of 4: values, ids, sums, gain"


def test_an_axis_that_no_part_has_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        outgoing_parts(TOP, top(), Form((("head", slice(1)),)))
    assert refused.value.message == "there is no axis 'head'; values, ids, sums, gain of top have pos, k"
    assert refused.value.metadata == {"axis": "head"}


# Memory


def test_a_contiguous_value_on_the_cpu_is_framed_where_it_lies() -> None:
    value = torch.zeros(2**20)
    (part,) = on_host([value])
    assert part.data_ptr() == value.data_ptr()
