"""Edits of rows that a model computes in passes of their own: as each row by itself, and as one run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from models.test_edited_runs import edited, ran
from support.models.families import D_MODEL, N_CTX, N_HEADS, ROPE_BORDER
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    ffn_out,
    final_norm_scale,
    freeze,
    head,
    key,
    mean,
    neurons,
    noise,
    norm_scale,
    patch,
    pattern,
    query,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    value,
    value_of,
    zero,
)


def row(length: int, first: int) -> list[int]:
    return [(first * 7 + 3 * n) % 499 + 1 for n in range(length)]


ROWS = [row(5, 1), row(ROPE_BORDER + 4, 2), row(3, 3), row(N_CTX, 4), row(ROPE_BORDER, 5)]
OTHERS = [row(len(each), 10 + n) for n, each in enumerate(ROWS)]
V = torch.linspace(-1.5, 2, D_MODEL).sin()
D_HEAD = D_MODEL // N_HEADS
FAMILY = "phi3_longrope"

SITES: list[Site] = [
    *(residual_in(0), residual_in(1), residual_out(-1), residual_after_attn(0), attn_out(1), ffn_out(0)),
    *(head(0, 1), head(1), pattern(0, 2), pattern(1), neurons(1, [3, 5]), neurons(0)),
    *(query(0, 1), query(1), key(0, -1), key(1), value(0, 0), value(1)),
]
NORMS: list[Site] = [norm_scale(0, "attn"), norm_scale(1, "ffn"), final_norm_scale()]
AT: dict[str, Any] = {"positions": [0, -1], "rows": [1, 2, 4]}


def only(edits: list[Intervention], n: int) -> list[Intervention]:
    """Those of a row, as it is alone."""
    return [
        dataclasses.replace(edit, rows="all" if edit.rows == "all" else (0,))
        for edit in edits
        if edit.rows == "all" or n in edit.rows
    ]


def require_same(whole: Any, alone: list[Any]) -> None:
    """All reads of a run are those of its rows by themselves."""
    for n, (one, tokens) in enumerate(zip(alone, ROWS, strict=True)):
        at = len(tokens)
        pairs = [
            (whole.logits()[n, :at], one.logits()[0]),
            (whole.residual_after_attn(0)[n, :at], one.residual_after_attn(0)[0]),
            (whole.residual_out(1)[n, :at], one.residual_out(1)[0]),
            (whole.ffn_out(0)[n, :at], one.ffn_out(0)[0]),
        ]
        for layer in (0, 1):
            pairs.append((whole.attention_matrix(n, layer, 2)[:at, :at], one.attention_matrix(0, layer, 2)))
            pairs += [(whole.attention_output(n, layer, 2, h), one.attention_output(0, layer, 2, h)) for h in (1, 2)]
            pairs.append((whole.neuron_activations(n, layer, 2), one.neuron_activations(0, layer, 2)))
        for got, wanted in pairs:
            assert (got - wanted).abs().max().item() <= 2e-5


def require_same_bits(site: Site, got: Any, wanted: Any) -> None:
    """Between the branches attention adds what is missing, which is rounded."""
    if site == residual_after_attn(0):
        assert (got.logits() - wanted.logits()).abs().max().item() <= 2e-5
    else:
        assert torch.equal(got.logits(), wanted.logits())


@pytest.mark.parametrize("site", SITES, ids=str)
def test_each_site_as_of_rows_by_themselves(site: Site) -> None:
    edits = [scale(site, -0.5, **AT), scale(site, 1.5)]
    whole = edited(FAMILY, *edits, rows=ROWS)
    alone = [edited(FAMILY, *only(edits, n), rows=[tokens]) for n, tokens in enumerate(ROWS)]
    require_same(whole, alone)
    second = [one.effects()[-1] for one in alone]
    assert whole.effects()[1].changed == sum(effect.changed for effect in second)
    assert whole.effects()[1].delta_norm == pytest.approx(sum(e.delta_norm**2 for e in second) ** 0.5, rel=1e-4)
    assert whole.effects()[1].max_delta == pytest.approx(max(effect.max_delta for effect in second), rel=1e-4)
    if "pattern" not in str(site):
        assert whole.effects()[1].selected == sum(effect.selected for effect in second)


@pytest.mark.parametrize("site", [*SITES, *NORMS], ids=str)
def test_sources_of_such_runs(site: Site) -> None:
    plain, other = ran(FAMILY, *ROWS), ran(FAMILY, *OTHERS)
    same = edited(FAMILY, freeze(site), rows=ROWS)
    assert torch.equal(same.logits(), plain.logits())
    assert same.effects()[0].changed == 0
    whole = edited(FAMILY, freeze(site, other), rows=ROWS)
    alone = [edited(FAMILY, freeze(site, ran(FAMILY, o)), rows=[r]) for r, o in zip(ROWS, OTHERS, strict=True)]
    require_same(whole, alone)
    again = edited(FAMILY, freeze(site, whole), rows=ROWS)
    require_same_bits(site, again, whole)
    if site in NORMS:
        return
    partly = edited(FAMILY, patch(site, other, rows=[1]), rows=ROWS)  # the pass of the short rows has none
    require_same(partly, [ran(FAMILY, r) if n != 1 else alone[1] for n, r in enumerate(ROWS)])
    require_same_bits(site, edited(FAMILY, freeze(site, partly), rows=ROWS), partly)


def test_vectors_noise_and_rows_of_vectors() -> None:
    other = ran(FAMILY, *OTHERS)
    each = torch.stack([V * n for n in range(6)])
    whole = edited(
        FAMILY,
        add(residual_in(0), V, 0.5, positions="last", relative=True),
        set_to(residual_in(1), each, **AT),
        noise(head(1, 0), 0.5, 3, positions=[1], rows=[3, 0]),
        mean(ffn_out(0), other, positions=[2]),
        add(query(1, 0), value_of(key(0, 1), other, row=3, pos=-1), positions=[1]),
        zero(value(1, 1), rows=[1, 0]),
        rows=ROWS,
    )
    assert torch.equal(whole.residual_in(1)[1, 0], each[0])
    assert torch.equal(whole.residual_in(1)[1, len(ROWS[1]) - 1], each[1])
    assert torch.equal(whole.residual_in(1)[4, len(ROWS[4]) - 1], each[5])
    stream = torch.cat([other.ffn_out(0)[n, : len(tokens)] for n, tokens in enumerate(OTHERS)])
    assert (whole.ffn_out(0)[3, 2] - stream.mean(dim=0)).abs().max() < 1e-5
    assert all(effect.changed > 0 for effect in whole.effects())
    alone = edited(FAMILY, noise(head(1, 0), 0.5, 3, positions=[1], rows=[0]), rows=[ROWS[0]])
    other_place = edited(FAMILY, noise(head(1, 0), 0.5, 3, positions=[1], rows=[0]), rows=ROWS)
    assert (other_place.logits()[0, :5] - alone.logits()[0]).abs().max() < 2e-5
