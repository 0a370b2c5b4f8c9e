"""Many reads in one request: there and back for every method, and what makes no sense is refused with its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest
import torch
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm.errors import IndexOutOfRangeError, InvalidRequestError
from transparent_llm.wire import fetch, requests
from transparent_llm.wire._gen.service_pb2 import FetchItem, FetchRequest, LogitsRequest, PlanRequest, ResidualInRequest
from transparent_llm.wire._gen.tensor_pb2 import DTYPE_BF16, ENCODING_DENSE, ENCODING_FACTORED, AxisSlice, TensorOptions
from transparent_llm.wire.form import Form, form_of
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.parameters import Argument

_Message = TypeVar("_Message", bound=Message)
FETCHED = sorted(fetch.FETCHED_METHODS)


def refusal(message: FetchRequest) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as refused:
        fetch.reads(message)
    return refused.value


def fetching(run_id: str, items: Sequence[tuple[str, Message]]) -> FetchRequest:
    return FetchRequest(run_id=run_id, items=[FetchItem(**{name: item}) for name, item in items])  # type: ignore[arg-type]


def sent(message: _Message) -> _Message:
    return type(message).FromString(message.SerializeToString())


def defaults(name: str) -> tuple[Argument, ...]:
    """Of its parameters."""
    return tuple(parameter.default for parameter in METHODS[name].parameters)


@st.composite
def any_reads(draw: st.DrawFn) -> tuple[str, tuple[Argument, ...], TensorOptions]:
    """A method, its arguments and options, be they in range or not; parameters are left out."""
    name = draw(st.sampled_from(FETCHED))
    method, index = METHODS[name], st.integers(-(2**31), 2**31 - 1)
    indices = [draw(index | st.none() if axis in method.optional else index) for axis in method.arguments]
    slices = st.builds(AxisSlice, axis=st.sampled_from(method.value_dims), start=st.none() | st.integers(-9, 9))
    encoding = st.sampled_from([0, ENCODING_DENSE, ENCODING_FACTORED])
    asked = st.builds(
        TensorOptions, slices=st.lists(slices, max_size=2), dtype=st.sampled_from([0, DTYPE_BF16]), encoding=encoding
    )
    return name, (*indices, *defaults(name)), draw(asked)


# There and back


def test_what_can_be_fetched_reads_a_run_and_answers_a_tensor() -> None:
    assert {
        name for name, method in METHODS.items() if method.of_run and method.dims is not None
    } == fetch.FETCHED_METHODS


@given(st.lists(any_reads(), min_size=1, max_size=6))
@settings(deadline=None)
def test_any_reads_come_back_in_order(wanted: list[tuple[str, tuple[Argument, ...], TensorOptions]]) -> None:
    items = [(name, requests.of_method(name, "", *given, options=asked)) for name, given, asked in wanted]
    expected = [(name, given, form_of(asked)) for name, given, asked in wanted]
    assert fetch.reads(sent(fetching("a run", items))) == expected


@pytest.mark.parametrize("name", FETCHED)
def test_every_method_comes_back(name: str) -> None:
    method = METHODS[name]
    arguments = (*range(len(method.arguments)), *defaults(name))
    axis = method.value_dims[0]
    form = Form(((axis, slice(1, None, 2)),), torch.float64, factored=True)
    item = requests.Item(name, arguments, form)
    for message in (requests.fetch("a run", [item]), requests.plan("a run", [item])):
        assert message.run_id == "a run"
        assert fetch.reads(sent(message)) == [(name, arguments, form)]


def test_an_index_that_may_be_left_out_comes_back_as_none() -> None:
    items = [("attention_output", requests.of_method("attention_output", "", 0, 1, 2, head)) for head in (None, 0)]
    assert [read[1] for read in fetch.reads(sent(fetching("a run", items)))] == [(0, 1, 2, None), (0, 1, 2, 0)]


def test_zero_is_an_index_and_not_left_out() -> None:
    message = sent(fetching("a run", [("residual_in", requests.of_method("residual_in", "", 0))]))
    assert fetch.reads(message)[0][:2] == ("residual_in", (0,))


def test_one_read_may_be_asked_for_twice() -> None:
    item = ("logits", requests.of_method("logits", ""))
    assert [name for name, _, _ in fetch.reads(fetching("a run", [item, item]))] == ["logits", "logits"]


def test_an_item_may_repeat_the_run() -> None:
    message = FetchRequest(run_id="a run", items=[FetchItem(logits=LogitsRequest(run_id="a run"))])
    assert [name for name, _, _ in fetch.reads(message)] == ["logits"]


def test_what_belongs_to_the_stream_may_be_set_for_it() -> None:
    stream = TensorOptions(resume_offset=5, etag="tag", max_chunk_bytes=7)
    message = FetchRequest(run_id="a run", items=[FetchItem(logits=LogitsRequest())], options=stream)
    assert [name for name, _, _ in fetch.reads(message)] == ["logits"]


def test_an_index_that_no_axis_has_is_refused_before_it_is_sent() -> None:
    with pytest.raises(IndexOutOfRangeError, match="layer 2147483648 is out of range: no axis is that long"):
        requests.of_method("residual_in", "", 2**31)


# Refusals


@pytest.mark.parametrize("message", [FetchRequest(), FetchRequest(run_id="a run")], ids=["nothing", "run alone"])
def test_a_fetch_of_nothing_is_refused(message: FetchRequest) -> None:
    assert str(refusal(message)) == "Fetch needs at least one item"


@pytest.mark.parametrize("kind", [FetchRequest, PlanRequest])
def test_more_items_than_there_may_be_are_refused_before_any_is_looked_at(kind: type[FetchRequest]) -> None:
    right = fetching("a run", [("logits", requests.of_method("logits", ""))] * fetch.MOST_ITEMS)
    assert len(fetch.reads(kind(run_id="a run", items=right.items))) == 4096
    error = refusal(kind(run_id="a run", items=[FetchItem()] * 4097))
    assert str(error) == f"{kind.__name__[:-7]} takes at most 4096 items at once, got 4097; split it into several calls"
    assert (error.reason, error.metadata) == ("TOO_LARGE", {"needed": "4097", "allowed": "4096"})


def test_a_part_of_the_items_is_read_alone() -> None:
    items = [("residual_in", requests.of_method("residual_in", "", layer)) for layer in range(9)]
    message = fetching("a run", items)
    assert [indices for _, indices, _ in fetch.reads(message, 3, 5)] == [(3,), (4,)]


def test_an_item_that_names_nothing_is_refused_by_its_place() -> None:
    error = refusal(FetchRequest(run_id="a run", items=[FetchItem(logits=LogitsRequest()), FetchItem()]))
    known = ", ".join(field.name for field in FetchItem.DESCRIPTOR.fields)
    assert str(error) == f"item 1 of the Fetch names nothing to read; known are {known}"
    assert error.metadata == {"item": "1"}


def test_an_item_of_a_newer_schema_is_refused_by_its_place() -> None:
    newer = FetchItem.FromString(b"\xf2\x3f\x00")  # field 1022
    error = refusal(FetchRequest(run_id="a run", items=[newer]))
    assert str(error).startswith("item 0 of the Fetch names nothing to read; ")
    assert error.metadata == {"item": "0"}


@pytest.mark.parametrize("name", FETCHED)
def test_an_item_of_another_run_is_refused_by_its_place(name: str) -> None:
    other = requests.of_method(name, "another", *range(len(METHODS[name].arguments)))
    items = [("logits", requests.of_method("logits", "a run")), (name, other)]
    error = refusal(fetching("a run", items))
    assert str(error) == "item 1 of the Fetch names another run; one Fetch reads one run"
    assert error.metadata == {"item": "1"}


@pytest.mark.parametrize(
    "stream",
    [
        TensorOptions(slices=[AxisSlice(axis="pos")]),
        TensorOptions(dtype=DTYPE_BF16),
        TensorOptions(encoding=ENCODING_FACTORED),
        TensorOptions(encoding=ENCODING_DENSE, max_chunk_bytes=5),
    ],
    ids=["slices", "dtype", "factored", "dense"],
)
def test_options_of_items_are_refused_for_the_stream(stream: TensorOptions) -> None:
    message = FetchRequest(run_id="a run", items=[FetchItem(logits=LogitsRequest())], options=stream)
    expected = "slices, dtype and encoding of a Fetch belong to its items, not to the stream"
    assert str(refusal(message)) == expected


def test_a_missing_index_is_refused_as_in_a_call_of_its_own() -> None:
    error = refusal(FetchRequest(run_id="a run", items=[FetchItem(residual_in=ResidualInRequest())]))
    assert str(error) == "ResidualIn needs layer; an index has no default"
    assert error.reason == "MISSING_ARGUMENT"
    assert error.metadata["axis"] == "layer"


@pytest.mark.parametrize("name", [name for name in FETCHED if METHODS[name].arguments])
def test_every_index_that_has_no_default_is_missed(name: str) -> None:
    method = METHODS[name]
    required = [axis for axis in method.arguments if axis not in method.optional]
    message = fetching("a run", [(name, method.request_type())])
    assert str(refusal(message)) == f"{method.rpc} needs {', '.join(required)}; an index has no default"
