"""What came, put together read by read."""

from __future__ import annotations

import pytest
import torch

from transparent_llm.client.reads import grouped, of_parts
from transparent_llm.errors import InternalError
from transparent_llm.wire.methods import Method, Part

ATTN = [("decomposed_attn.pattern", 1), ("decomposed_attn.value_out", 2)]


def test_values_and_factors_are_told_apart() -> None:
    arrived = [("logits", 0), *ATTN, ("decomposed_attn.gain", 3), ("decomposed_attn", 4)]
    assert grouped(["logits", "decomposed_attn", "decomposed_attn"], arrived) == [
        {"value": 0},
        {"pattern": 1, "value_out": 2, "gain": 3},
        {"value": 4},
    ]


@pytest.mark.parametrize(
    ("arrived", "why"),
    [
        (ATTN[:1], "sent pattern of decomposed_attn, which do not make up a value"),
        (ATTN[1:], "without the factors before it"),
        ([*ATTN, *ATTN], "sent 2 values, not the 1"),
        ([("logits", 0)], "sent 1 values, not the 1"),
        ([], "sent 0 values, not the 1"),
    ],
)
def test_what_makes_no_value_is_a_broken_server(arrived: list[tuple[str, int]], why: str) -> None:
    with pytest.raises(InternalError, match=why):
        grouped(["decomposed_attn"], arrived)


def test_parts_of_different_lengths_make_no_value() -> None:
    method = Method("top", dims=(), parts=(Part("values", ("pos", "k")), Part("ids", ("pos", "k"), torch.int64)))
    named = {"values": torch.zeros(2, 3), "ids": torch.zeros(2, 4, dtype=torch.int64)}
    with pytest.raises(InternalError, match=r"^the server sent top with 3 and with 4 of k$"):
        of_parts(method, named)
