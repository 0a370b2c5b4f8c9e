"""What requests ask for beyond their arguments, read once."""

from __future__ import annotations

import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire._gen.tensor_pb2 import (
    DTYPE_BF16,
    ENCODING_DENSE,
    ENCODING_FACTORED,
    AxisSlice,
    SharedMemory,
    TensorOptions,
)
from transparent_llm.wire.form import Delivery, Form, delivery_of, form_of
from transparent_llm.wire.ring import Offer


def test_without_options_a_value_is_sent_as_it_is_held() -> None:
    assert form_of(TensorOptions()) == Form()
    assert delivery_of(TensorOptions()) == Delivery()


def test_a_form_has_all_that_the_bits_depend_on() -> None:
    axes = [AxisSlice(axis="pos", start=0, stop=-1), AxisSlice(axis="batch", step=2)]
    form = form_of(TensorOptions(slices=axes, dtype=DTYPE_BF16, encoding=ENCODING_FACTORED))
    expected = (("pos", slice(0, -1, None)), ("batch", slice(None, None, 2)))
    assert form == Form(expected, torch.bfloat16, factored=True)


def test_dense_is_what_comes_anyway() -> None:
    assert form_of(TensorOptions(encoding=ENCODING_DENSE)) == Form()


def test_a_delivery_has_what_changes_no_bits() -> None:
    offered = SharedMemory(name="a file", nonce=b"n", slots=2, slot_bytes=3)
    options = TensorOptions(resume_offset=5, etag="tag", max_chunk_bytes=7, shared_memory=offered)
    assert delivery_of(options) == Delivery(5, "tag", 7, Offer("a file", b"n", 2, 3))
    assert form_of(options) == Form()


def test_a_dtype_of_a_newer_client_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"^dtype 99 is unknown"):
        form_of(TensorOptions.FromString(b"\x10\x63"))


def test_an_encoding_of_a_newer_client_is_refused() -> None:
    with pytest.raises(InvalidRequestError) as refused:
        form_of(TensorOptions.FromString(b"\x30\x63"))
    assert refused.value.message == "unknown encoding 99; allowed are DENSE and FACTORED"
    assert refused.value.metadata == {"got": "99"}
