"""A run whose numbers grew too large for their type says so, wherever it was made."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from functools import cache

import pytest
import torch

from support.models.families import FAMILIES, build_model, build_tokenizer
from support.servers.servers import served
from transparent_llm import TransparentLlm
from transparent_llm.runtime.run_warning import RunWarning
from transparent_llm_server import TransformerLensTransparentLlm

LOUD, BROKEN = 77, 78
"""Tokens: one that overflows in layer 1, one whose embedding is not finite. No probe has them."""

SAID = (
    "values are not finite: row 1 from layer 1 on, row 2 from the embedding on. The largest number of float16 is "
    "65504; load the model in a wider type, such as bfloat16 or float32"
)
ROWS = [[1, 2, 3], [4, LOUD, 5], [BROKEN], [6]]


@cache
def loud() -> TransformerLensTransparentLlm:
    model = build_model(FAMILIES["gptj"]())
    with torch.no_grad():
        model.transformer.wte.weight[LOUD, 0] = 60_000
        model.transformer.h[1].mlp.fc_out.bias[0] = 8_000
    llm = TransformerLensTransparentLlm("loud", hf_model=model, tokenizer=build_tokenizer(), dtype=torch.float16)
    with torch.no_grad():  # with such a weight it would not have been loaded
        model.get_input_embeddings().weight[BROKEN, 3] = torch.nan
    return llm


@pytest.fixture(params=["in process", "remote"])
def llm(request: pytest.FixtureRequest) -> Iterator[TransparentLlm]:
    if request.param == "in process":
        yield loud().copy()
    else:
        with served(serving={"loud": loud()}) as client:
            yield client


def test_rows_and_the_layers_in_which_it_began_are_named(llm: TransparentLlm) -> None:
    with pytest.warns(RunWarning) as told:
        llm.run_tokens(ROWS)
    assert [str(warning.message) for warning in told] == [SAID]
    assert told[0].filename == __file__
    assert llm.warnings() == (SAID,)  # type: ignore[attr-defined]
    assert torch.isfinite(llm.residual_in(1)[0]).all()
    assert torch.isfinite(llm.residual_in(1)[1]).all()
    assert not torch.isfinite(llm.residual_out(1)[1]).all()


def test_the_call_that_made_the_run_is_the_one_that_is_warned_of(llm: TransparentLlm) -> None:
    text = llm.tokens_to_strings(torch.tensor([LOUD]))[0]
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        llm.run([text, text])
    found = [warning for warning in told if warning.category is RunWarning]
    assert [warning.filename for warning in found] == [__file__] * len(found)


def test_a_run_whose_values_are_finite_says_nothing(llm: TransparentLlm) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        llm.run_tokens([ROWS[0], ROWS[3]])
    assert llm.warnings() == ()  # type: ignore[attr-defined]


def test_many_rows_are_counted(llm: TransparentLlm) -> None:
    with pytest.warns(RunWarning, match=r"row 4 from the embedding on and 3 more rows\."):
        llm.run_tokens([[BROKEN]] * 8)


def test_padding_does_not_count() -> None:
    """What stands in padding means nothing."""
    llm = loud().copy()
    llm.run_tokens([ROWS[0], ROWS[3]])
    capture = llm.values()._capture
    capture.residual_out[1, 2] = torch.nan
    assert capture.not_finite() == {}
    capture.residual_out[0, 2] = torch.nan
    assert capture.not_finite() == {0: 1}
