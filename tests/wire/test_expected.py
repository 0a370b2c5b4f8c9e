"""What comes is held to what was asked for: order, names, axes, shapes and types."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from transparent_llm.wire import tensors
from transparent_llm.wire._gen.tensor_pb2 import TensorHeader
from transparent_llm.wire.expected import Answer, Expected
from transparent_llm.wire.methods import METHODS, Part
from transparent_llm.wire.protocol_error import ProtocolError

DIMS = ("batch", "pos", "d_model")
SIZES = {"batch": 2, "pos": 3, "target": 3, "source": 3, "head": 4, "d_model": 5, "d_ffn": 7, "span": 7, "bound": 2}
STREAM = Expected("residual_in", DIMS, SIZES)
ATTN_DIMS, ATTN_PARTS = ("target", "source", "head", "d_model"), METHODS["decomposed_attn"].parts
ATTN = Expected("decomposed_attn", ATTN_DIMS, SIZES, torch.bfloat16, ATTN_PARTS)
FFN_DIMS, FFN_PARTS = ("hidden", "d_model"), METHODS["decomposed_ffn_out"].parts
FFN = Expected("decomposed_ffn_out", FFN_DIMS, {**SIZES, "hidden": 7}, torch.float32, FFN_PARTS)
TOP = Expected("top", (), {"k": 2}, torch.bfloat16, (Part("values", ("k",)), Part("ids", ("k",), torch.int64)))
"""A value that is two tensors, and never one."""


def head(name: str, shape: Sequence[int], dims: Sequence[str], dtype: torch.dtype = torch.float32) -> TensorHeader:
    return tensors.header(name, dtype, shape, dims, "etag")


WHOLE = head("residual_in", (2, 3, 5), DIMS)
PATTERN = head("decomposed_attn.pattern", (4, 3, 3), ("head", "target", "source"), torch.bfloat16)
VALUE_OUT = head("decomposed_attn.value_out", (3, 4, 5), ("source", "head", "d_model"))
GAIN = head("decomposed_attn.gain", (3, 5), ("target", "d_model"))
ACTIVATIONS = head("decomposed_ffn_out.activations", (4,), ("d_ffn",))
TOP_VALUES = head("top.values", (2,), ("k",), torch.bfloat16)
TOP_IDS = head("top.ids", (2,), ("k",), torch.int64)
SPANS = head("decomposed_ffn_out.spans", (2, 2), ("span", "bound"), torch.int64)


def held_to(expected: Sequence[Expected], headers: Sequence[TensorHeader]) -> None:
    answer, place = Answer(expected), None
    for each in headers:
        place, _ = answer.follow(place, each)
    answer.require_whole(place)


@pytest.mark.parametrize(
    ("expected", "headers"),
    [
        ([STREAM, STREAM], [WHOLE, WHOLE]),
        ([ATTN], [PATTERN, VALUE_OUT]),
        ([ATTN, ATTN, STREAM], [PATTERN, VALUE_OUT, GAIN, PATTERN, VALUE_OUT, WHOLE]),
        ([ATTN], [PATTERN, VALUE_OUT, head("decomposed_attn.gain", (), ())]),
        ([ATTN], [head("decomposed_attn", (3, 3, 4, 5), ATTN.dims, torch.bfloat16)]),
        ([FFN], [ACTIVATIONS, SPANS]),
        ([TOP, STREAM, TOP, TOP], [TOP_VALUES, TOP_IDS, WHOLE, TOP_VALUES, TOP_IDS, TOP_VALUES, TOP_IDS]),
        ([FFN, FFN], [ACTIVATIONS, head("decomposed_ffn_out.gain", (5,), ("d_model",)), SPANS, ACTIVATIONS]),
        ([Expected("residual_in", DIMS, {})], [head("residual_in", (9, 9, 9), DIMS, torch.float16)]),
    ],
    ids=str,
)
def test_what_was_asked_for_is_taken(expected: list[Expected], headers: list[TensorHeader]) -> None:
    held_to(expected, headers)


@pytest.mark.parametrize(
    ("expected", "headers", "why"),
    [
        ([STREAM], [], "received 0 values, 1 were asked for"),
        ([STREAM], [WHOLE, WHOLE], "arrived after all 1 values"),
        ([STREAM], [head("residual_out", (2, 3, 5), DIMS)], "'residual_out' arrived where residual_in was asked for"),
        ([STREAM], [head("residual_in", (2, 4, 5), DIMS)], r"is F32 \[2, 4, 5\].*where  \[2, 3, 5\]"),
        ([STREAM], [head("residual_in", (2, 3, 5), ("batch", "d_model", "pos"))], "was asked for"),
        ([STREAM], [head("residual_in", (2, 3, 5), DIMS, torch.int32)], "is I32"),
        ([STREAM], [head("residual_in", (2, 3), DIMS[:2])], "was asked for"),
        ([ATTN], [PATTERN], "without its factor value_out"),
        ([ATTN], [PATTERN, GAIN], "without its factor value_out"),
        ([ATTN], [VALUE_OUT], "arrived where decomposed_attn was asked for"),
        ([ATTN], [PATTERN, VALUE_OUT, GAIN, GAIN], "arrived after all 1 values"),
        ([ATTN], [PATTERN, head("decomposed_attn.value_out", (3, 4, 6), VALUE_OUT.dims)], r"\[3, 4, 5\]"),
        ([ATTN], [PATTERN, head("decomposed_attn.value_out", (3, 4, 5), VALUE_OUT.dims, torch.bfloat16)], "is BF16"),
        ([ATTN], [head("decomposed_attn.pattern", (4, 3, 3), PATTERN.dims, torch.float16)], "is F16"),
        ([FFN], [head("decomposed_ffn_out.activations", (8,), ("d_ffn",))], "was asked for"),
        ([FFN], [ACTIVATIONS, head("decomposed_ffn_out.spans", (2, 3), ("span", "bound"), torch.int64)], "bound"),
        ([FFN], [ACTIVATIONS, head("decomposed_ffn_out.spans", (8, 2), ("span", "bound"), torch.int64)], "span"),
        ([FFN], [ACTIVATIONS, head("decomposed_ffn_out.spans", (), (), torch.int64)], "span"),
        ([Expected("decomposed_attn", ATTN.dims, SIZES)], [PATTERN], "arrived where decomposed_attn was asked for"),
        ([TOP], [TOP_VALUES], "without its part ids"),
        ([TOP], [TOP_IDS, TOP_VALUES], "arrived where top was asked for"),
        ([TOP], [head("top", (), ())], "arrived where top was asked for"),
        ([TOP], [TOP_VALUES, head("top.ids", (1,), ("k",), torch.int64)], r"where  \[2\]"),
        ([STREAM], [TensorHeader(name="residual_in", dtype=9, shape=[1] * 9, dims=["x"] * 9, total_bytes=4)], "9 axes"),
        ([STREAM], [TensorHeader(name="x" * 1000, dtype=9, shape=[], dims=[], total_bytes=4)], "arrived where"),
        (
            [STREAM],
            [TensorHeader(name="residual_in", dtype=9, total_bytes=4, etag="x" * 999)],
            "no tensor has such names",
        ),
    ],
    ids=str,
)
def test_anything_else_is_refused(expected: list[Expected], headers: list[TensorHeader], why: str) -> None:
    with pytest.raises(ProtocolError, match=why) as refused:
        held_to(expected, headers)
    assert len(str(refused.value)) < 500
