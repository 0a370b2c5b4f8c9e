"""Rows of token ids as a caller pads them, and values put back where they belong."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.integrations.transformer_lens.rows import Rows

IDS = torch.tensor([[9, 9, 1, 2], [3, 4, 5, 6]])


def test_without_a_mask_every_id_is_a_token() -> None:
    rows = Rows.of(IDS)
    assert rows == Rows([[9, 9, 1, 2], [3, 4, 5, 6]], [0, 0], 4)
    value = torch.rand(2, 4, 3)
    assert rows.place(value, (1,)) is value


def test_one_row_may_come_without_a_batch_axis() -> None:
    assert Rows.of(torch.tensor([7, 8]), torch.tensor([0, 1])) == Rows([[8]], [1], 2)


def test_padding_is_left_out_on_either_side_and_put_back() -> None:
    rows = Rows.of(IDS, torch.tensor([[0, 0, 1, 1], [1, 1, 1, 0]]))
    assert rows == Rows([[1, 2], [3, 4, 5]], [2, 0], 4)
    assert rows.n_pos == 3
    value = torch.tensor([[[1.0], [2.0], [7.0]], [[3.0], [4.0], [5.0]]])
    assert rows.place(value, (1,))[..., 0].tolist() == [[0, 0, 1, 2], [3, 4, 5, 0]]
    assert rows.place(value, (1,), -torch.inf)[1, 3].tolist() == [-torch.inf]


def test_a_pattern_has_two_axes_of_positions() -> None:
    rows = Rows.of(torch.tensor([[9, 1, 2]]), torch.tensor([[0, 1, 1]]))
    pattern = torch.tensor([[[[1.0, 0.0], [0.4, 0.6]]]])
    placed = rows.place(pattern, (2, 3))[0, 0]
    assert torch.equal(placed, torch.tensor([[0, 0, 0], [0, 1, 0], [0, 0.4, 0.6]]))


def test_a_batch_that_is_shorter_than_its_tensor_keeps_its_length() -> None:
    rows = Rows.of(torch.tensor([[1, 9], [2, 9]]), torch.tensor([[1, 0], [1, 0]]))
    assert rows.place(torch.ones(2, 1), (1,)).tolist() == [[1, 0], [1, 0]]


@pytest.mark.parametrize("shape", [(2, 3, 5), (1, 4, 5)])
def test_a_value_of_other_positions_or_rows_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Rows.of(IDS).place(torch.zeros(shape), (1,))
    assert str(caught.value).startswith(f"a value of shape {list(shape)} came for 2 rows of 4 positions: ")


@pytest.mark.parametrize(
    ("ids", "mask", "text"),
    [
        (torch.rand(1, 2), None, "input_ids must be integers of shape [batch pos] or [pos], got torch.float32"),
        (torch.tensor([[True]]), None, "input_ids must be integers"),
        (torch.tensor(3), None, "input_ids must be integers"),
        (IDS, torch.ones(2, 3), "attention_mask has shape [2, 3], input_ids [2, 4]: they must be the same"),
        (IDS, torch.full((2, 4), 2), "attention_mask of row 0 has values other than 0 and 1"),
        (IDS, torch.tensor([[1, 1, 1, 1], [0, 0, 0, 0]]), "attention_mask leaves row 1 without a token"),
        (IDS, torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]]), "attention_mask of row 0 has a gap between tokens"),
    ],
)
def test_what_is_no_batch_is_refused(ids: Any, mask: Any, text: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Rows.of(ids, mask)
    assert str(caught.value).startswith(text)
