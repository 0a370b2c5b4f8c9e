"""What counts as a number, and what is said of what does not."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import residual_in, zero
from transparent_llm.runtime.numbers import finite_number


@pytest.mark.parametrize(
    "given", [0.5, np.float32(0.5), np.array(0.5), torch.tensor(0.5), torch.tensor(0.5).bfloat16(), Fraction(1, 2)]
)
def test_a_number_is_one_whoever_made_it(given: Any) -> None:
    assert finite_number("it", given) == 0.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (True, "bool True"),
        (np.bool_(True), "bool True"),
        ("0.5", "str '0.5'"),
        (np.str_("0.5"), "str_ "),
        (np.array("x" * 1000), r"ndarray of shape \[\]$"),
        (1j, "complex 1j"),
        (np.complex64(1j), "complex64 1j"),
        (torch.tensor(1j), "Tensor 1j"),
        (torch.tensor([0.5]), r"Tensor of shape \[1\]$"),
        (torch.tensor(0.5, device="meta"), r"Tensor of shape \[\]$"),
        (float("nan"), "float nan"),
        (10**400, "int 1000"),
        (None, "NoneType$"),
    ],
    ids=str,
)
def test_what_is_none_is_told_in_words(given: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^it must be a finite number, got {said}"):
        finite_number("it", given)


def test_positions_are_no_single_tensor() -> None:
    with pytest.raises(InvalidRequestError, match="positions must be 'all' or 'last', or a list, got Tensor 3"):
        zero(residual_in(0), positions=torch.tensor(3))  # type: ignore[arg-type]  # that is what is refused
