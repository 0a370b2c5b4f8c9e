"""Padded positions: NaN where that was chosen, a warning for whoever names one where it was not."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch

from support.servers.backends import Backend
from transparent_llm import PaddingWarning, TransparentLlm, errors

FAMILY = "gpt2"
ROWS = [[1, 2, 3, 4], [5, 6]]
LENGTHS = [4, 2]
Read = Callable[[TransparentLlm], torch.Tensor]

BY_POSITION: dict[str, Read] = {
    "logits": lambda llm: llm.logits(),
    "residual_in": lambda llm: llm.residual_in(1),
    "residual_after_attn": lambda llm: llm.residual_after_attn(0),
    "residual_out": lambda llm: llm.residual_out(1),
    "ffn_out": lambda llm: llm.ffn_out(0),
}
BY_TWO_POSITIONS: dict[str, Callable[[TransparentLlm, int], torch.Tensor]] = {
    "attention_matrix": lambda llm, row: llm.attention_matrix(row, 1, 2),
    "decomposed_attn": lambda llm, row: llm.decomposed_attn(row, 1),
}
AT_A_POSITION: dict[str, Callable[[TransparentLlm, int, int], torch.Tensor]] = {
    "decomposed_ffn_out": lambda llm, row, pos: llm.decomposed_ffn_out(row, 1, pos),
    "neuron_activations": lambda llm, row, pos: llm.neuron_activations(row, 0, pos),
    "attention_output": lambda llm, row, pos: llm.attention_output(row, 1, pos),
    "attention_output, a head": lambda llm, row, pos: llm.attention_output(row, 1, pos, 3),
    "attention_output_per_head": lambda llm, row, pos: llm.attention_output_per_head(row, 1, pos, 3),
}


@pytest.fixture
def ran(backend: Backend) -> Any:
    """Remote or not, it has `reading`."""
    llm = backend.open(FAMILY)
    llm.run_tokens(ROWS)
    return llm


def both(llm: Any, read: Read) -> tuple[torch.Tensor, torch.Tensor]:
    """As it is, and marked."""
    with warnings.catch_warnings(action="ignore", category=PaddingWarning):
        kept = read(llm)
    with llm.reading(padding="nan"):
        return kept, read(llm)


def require_real(marked: torch.Tensor, kept: torch.Tensor, real: tuple[Any, ...]) -> None:
    """The same bits in one part, NaN in all others."""
    assert torch.equal(marked[real], kept[real])
    assert torch.isfinite(kept).all()
    rest = marked.clone()
    rest[real] = torch.nan
    assert torch.isnan(rest).all()


@pytest.mark.parametrize("name", list(BY_POSITION))
def test_what_has_all_positions_is_marked_row_by_row(name: str, ran: Any) -> None:
    kept, marked = both(ran, BY_POSITION[name])
    for row, length in enumerate(LENGTHS):
        require_real(marked[row], kept[row], (slice(length),))


@pytest.mark.parametrize("row", [0, 1, -1])
@pytest.mark.parametrize("name", list(BY_TWO_POSITIONS))
def test_what_has_two_axes_of_positions_is_marked_along_both(name: str, row: int, ran: Any) -> None:
    kept, marked = both(ran, lambda llm: BY_TWO_POSITIONS[name](llm, row))
    require_real(marked, kept, (slice(LENGTHS[row]), slice(LENGTHS[row])))


@pytest.mark.parametrize("name", list(AT_A_POSITION))
def test_what_is_of_one_position_is_marked_as_a_whole(name: str, ran: Any) -> None:
    for row, pos in [(0, 3), (0, -1), (1, 1), (1, -2), (-1, -1)]:
        kept, marked = both(ran, lambda llm, row=row, pos=pos: AT_A_POSITION[name](llm, row, pos))
        assert torch.equal(marked, kept)
    for row, pos in [(1, 2), (-1, 3)]:
        kept, marked = both(ran, lambda llm, row=row, pos=pos: AT_A_POSITION[name](llm, row, pos))
        assert torch.isfinite(kept).all()
        assert torch.isnan(marked).all()


def test_what_is_no_floating_value_or_of_no_position_stays(ran: Any) -> None:
    vector = ran.residual_out(1)[0, 0]
    for read in (
        lambda llm: llm.tokens(),
        lambda llm: llm.mask(),
        lambda llm: llm.last(),
        lambda llm: llm.neuron_output(0, 3),
        lambda llm: llm.unembed(vector, True),
    ):
        kept, marked = both(ran, read)
        assert torch.equal(kept, marked)


def test_a_choice_ends_with_its_block_and_goes_with_a_copy(ran: Any) -> None:
    before = ran.residual_in(0)
    with ran.reading(padding="nan"):
        twin = ran.copy()
        with ran.reading(padding="keep"):
            assert torch.equal(ran.residual_in(0), before)
        assert torch.isnan(ran.residual_in(0)).any()
    assert torch.equal(ran.residual_in(0), before)
    assert torch.isnan(twin.residual_in(0)).any()


@pytest.mark.parametrize("choice", ["zero", "NaN", True, 0.0])
def test_another_choice_is_refused(choice: Any, ran: Any) -> None:
    with pytest.raises(errors.InvalidRequestError, match=r'^padding is "keep", for what .*, or "nan", got ') as caught:
        with ran.reading(padding=choice):
            pass
    assert repr(choice) in str(caught.value)


@pytest.mark.parametrize("name", list(AT_A_POSITION))
def test_who_names_a_padded_position_is_warned_once_for_each_run(name: str, ran: Any) -> None:
    for rows in (ROWS, [[7, 8, 9], [5, 6]]):
        ran.run_tokens(rows)
        with pytest.warns(PaddingWarning) as told:
            AT_A_POSITION[name](ran, -1, 2)
        (warning,) = told
        method = "attention_output" if name.startswith("attention") else name
        assert str(warning.message) == (
            f"{method} was read at position 2 of row 1, which has 2 tokens: what stands in padding means nothing. "
            'pos=-1 is the last token of a row; padding="nan" marks such values. This is said once for each run'
        )
        assert warning.filename == __file__
        AT_A_POSITION[name](ran, 1, 2)  # here and below a warning would be an error
        AT_A_POSITION[name](ran.copy(), 1, 2)


@pytest.mark.parametrize("name", list(AT_A_POSITION))
def test_tokens_and_marked_values_need_no_warning(name: str, ran: Any) -> None:
    for row, pos in [(0, 3), (1, 1), (1, -1), (1, -2)]:
        AT_A_POSITION[name](ran, row, pos)
    with ran.reading(padding="nan"):
        AT_A_POSITION[name](ran, 1, 3)
    with pytest.raises(errors.IndexOutOfRangeError):
        AT_A_POSITION[name](ran, 1, 4)
