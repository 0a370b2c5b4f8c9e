"""What edits did to each row, beside two runs of a plain Hugging Face model whose logits are compared in float64."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.servers.servers import tiny
from transparent_llm.errors import InvalidRequestError, NotRunError
from transparent_llm.interventions import add, final_norm_scale, freeze, head, patch, residual_in, scale, zero
from transparent_llm_server import TransformerLensTransparentLlm

ROWS = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]]
OTHER = [[11, 12, 13, 14, 15, 16, 17, 18], [19, 18, 17, 16]]
V = torch.linspace(-1.5, 2, D_MODEL).sin()
TOLERANCE = 1e-5


def plain_logits(family: str, row: list[int], change: Any = None) -> torch.Tensor:
    """After the last token of a row [d_vocab], float64, of the plain model; what enters block 1 is changed."""
    model = build_model(FAMILIES[family]())
    if change is not None:
        blocks = next(m for m in model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) in (2, 3))

        def hook(_: Any, args: Any, kwargs: Any) -> Any:
            if args:
                return (change(args[0]), *args[1:]), kwargs
            return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

        blocks[1].register_forward_pre_hook(hook, with_kwargs=True)
    logits: torch.Tensor = model(torch.tensor([row]), use_cache=False).logits[0, -1].double()
    return logits


def divergence(edited: torch.Tensor, unedited: torch.Tensor) -> float:
    """KL(edited || unedited) in nats, by its definition."""
    p, q = edited.softmax(0), unedited.softmax(0)
    return math.fsum((p * (p / q).log()).tolist())


@pytest.mark.parametrize("family", ["gpt2", "gemma2", "llama_gqa", "falcon"])
def test_rows_are_those_of_two_plain_runs(family: str) -> None:
    llm = tiny(family).copy()
    llm.run_tokens(ROWS, edits=[add(residual_in(1), V, 6.0, positions="last")])
    rows = llm.effects().rows
    assert len(rows) == 2
    for row, found in zip(ROWS, rows, strict=True):

        def change(x: torch.Tensor) -> torch.Tensor:
            x = x.clone()
            x[..., -1, :] += 6.0 * V
            return x

        edited, unedited = plain_logits(family, row, change), plain_logits(family, row)
        wanted = divergence(edited, unedited)
        assert wanted > 1e-4
        assert found.kl == pytest.approx(wanted, rel=1e-3, abs=TOLERANCE)
        assert (found.top_token, found.other_top_token) == (int(edited.argmax()), int(unedited.argmax()))
        assert found.top_changed == (found.top_token != found.other_top_token)
        ids = torch.tensor([found.top_token, found.other_top_token])
        assert [found.top_string, found.other_top_string] == llm.tokens_to_strings(ids)


def test_a_row_that_no_edit_touches_is_as_it_was() -> None:
    llm = tiny().copy()
    llm.run_tokens(ROWS, edits=[zero(head(0, 1), rows=[1])])
    untouched, touched = llm.effects().rows
    assert (untouched.kl, untouched.top_changed) == (0.0, False)
    assert touched.kl > 0.0


def test_no_effect_is_a_visible_fact() -> None:
    llm = tiny().copy()
    llm.run_tokens(ROWS, edits=[scale(residual_in(1), 1.0)])
    effects = llm.effects()
    assert effects.is_none
    assert [row.kl for row in effects.rows] == [0.0, 0.0]
    for text in (str(effects), effects._repr_html_()):
        assert "no effect: nothing was changed" in text
        assert "no effect: none of 640 elements changed" in text
    llm.run_tokens(ROWS, edits=[scale(residual_in(1), 1.0), zero(head(0, 1))])
    assert not llm.effects().is_none
    assert "no effect: nothing was changed" not in str(llm.effects())
    assert str(llm.effects()).count("no effect") == 1
    llm.run_tokens(ROWS)
    assert (len(llm.effects()), llm.effects().rows) == (0, ())


def test_runs_of_two_objects_are_compared() -> None:
    llm, other = tiny().copy(), tiny().copy()
    llm.run_tokens(ROWS, edits=[patch(residual_in(1), tiny_run(OTHER))])
    other.run_tokens(ROWS)
    assert llm.compare(other) == llm.effects().rows
    backward = other.compare(llm)
    assert [row.other_top_token for row in backward] == [row.top_token for row in llm.effects().rows]
    assert backward[0].kl != llm.effects().rows[0].kl  # KL has a direction
    for row, found in enumerate(other.compare(tiny_run(OTHER))):  # rows of other lengths: at the last token of each
        one, two = (plain_logits("gpt2", rows[row]) for rows in (ROWS, OTHER))
        assert found.kl == pytest.approx(divergence(one, two), rel=1e-3, abs=TOLERANCE)


def tiny_run(rows: list[list[int]]) -> Any:
    llm = tiny().copy()
    llm.run_tokens(rows)
    return llm


def test_what_cannot_be_compared_is_refused_with_the_numbers() -> None:
    llm = tiny_run(ROWS)
    with pytest.raises(InvalidRequestError, match="a run of 2 rows and one of 1: compare runs of as many rows"):
        llm.compare(tiny_run(ROWS[:1]))
    other = tiny("llama_gqa").copy()
    other.run_tokens(ROWS)
    with pytest.raises(InvalidRequestError, match="runs of two models"):
        llm.compare(other)
    with pytest.raises(InvalidRequestError, match="an object of the same model with a current run, got int"):
        llm.compare(3)
    made = TransformerLensTransparentLlm("gpt2", hf_model=build_model(FAMILIES["gpt2"]()), tokenizer=build_tokenizer())
    with pytest.raises(NotRunError):
        made.compare(llm)


def test_a_frozen_final_norm_counts() -> None:
    """What is compared are the scores that `logits` has."""
    llm = tiny().copy()
    llm.run_tokens(ROWS)
    unedited = llm.logits()
    llm.run_tokens(ROWS, edits=[freeze(final_norm_scale()), add(residual_in(1), V, 6.0, positions="last")])
    edited = llm.logits()
    for row, found in enumerate(llm.effects().rows):
        last = len(ROWS[row]) - 1
        wanted = divergence(edited[row, last].double(), unedited[row, last].double())
        assert abs(found.kl - wanted) <= TOLERANCE * max(1.0, wanted)
        assert found.top_token == int(edited[row, last].argmax())
