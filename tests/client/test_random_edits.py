"""Lists of edits that nobody thought of: remote as local, named by what they mean, reported as two runs' reads say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.servers.owners import BearerTokenFile
from support.servers.servers import running, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.interventions import (
    Intervention,
    Site,
    add,
    attn_out,
    clamp,
    ffn_out,
    head,
    literal,
    mean,
    neurons,
    noise,
    patch,
    pattern,
    project,
    residual_after_attn,
    residual_in,
    residual_out,
    scale,
    set_to,
    swap,
    unembedding,
    value_of,
    zero,
)
from transparent_llm.interventions.operation import Add, Noise, Scale, SetTo
from transparent_llm.interventions.site import SiteKind
from transparent_llm_server.app import Server

ROWS, OTHER = [[1, 2, 3, 4, 5, 6, 7], [9, 8, 7]], [[11, 12, 13, 14, 15, 16, 17], [19, 18, 17]]
LENGTHS = [len(row) for row in ROWS]
N_LAYERS, N_HEADS, D_MODEL, D_FFN = 2, 4, 64, 256

LAYERS = st.integers(-N_LAYERS, N_LAYERS - 1)
HEADS = st.integers(0, N_HEADS - 1)
STREAM: list[Any] = [residual_in, residual_after_attn, residual_out, attn_out, ffn_out]
NUMBERS = st.sampled_from([-2.0, -0.5, 0.0, 0.25, 1.0, 3.0])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as found:
        yield found


def vector(seed: int, width: int = D_MODEL) -> torch.Tensor:
    return torch.randn(width, generator=torch.Generator().manual_seed(seed))


@st.composite
def places(draw: st.DrawFn) -> dict[str, Any]:
    """Rows and positions, written in some way."""
    rows = draw(st.just("all") | st.lists(st.sampled_from([0, 1]), min_size=1, unique=True))
    shortest = min(LENGTHS[row] for row in ([0, 1] if rows == "all" else rows))
    some = st.lists(st.integers(-shortest, shortest - 1), min_size=1, max_size=3, unique=True)
    positions = draw(st.sampled_from(["all", "last"]) | some.filter(lambda found: _are_apart(found, rows)))
    return {"rows": rows, "positions": positions}


def _are_apart(positions: list[int], rows: Any) -> bool:
    """Whether no two are one position, in any row."""
    lengths = LENGTHS if rows == "all" else [LENGTHS[row] for row in rows]
    return all(len({position % length for position in positions}) == len(positions) for length in lengths)


@st.composite
def made(draw: st.DrawFn) -> Any:
    """A function from the object that is taken from to an edit."""
    where = draw(places())
    site = draw(
        st.builds(lambda of, layer: of(layer), st.sampled_from(STREAM), LAYERS)
        | st.builds(head, LAYERS, HEADS)
        | st.builds(pattern, LAYERS, HEADS)
        | st.builds(neurons, LAYERS, st.lists(st.integers(0, D_FFN - 1), min_size=1, max_size=5, unique=True))
    )
    is_stream, factor, seed = site.kind not in _NARROW, draw(NUMBERS), draw(st.integers(0, 5))
    plain: list[Any] = [
        lambda _: scale(site, factor, **where),
        lambda _: noise(site, abs(factor), seed, **where),
        lambda other: patch(site, other, **where),
    ]
    if site.kind is not SiteKind.PATTERN:
        plain.append(lambda other: mean(site, other, **where))
    if not is_stream:
        return draw(st.sampled_from(plain))
    v, w = vector(seed), vector(seed + 1)
    return draw(
        st.sampled_from(
            [
                *plain,
                lambda _: add(site, v, factor, **where),
                lambda _: add(site, unembedding(5, 6), factor, relative=True, **where),
                lambda other: add(site, value_of(ffn_out(1), other, row=1, pos=-1) - literal(v), **where),
                lambda _: set_to(site, v, **where),
                lambda _: project(site, v, factor, **where),
                lambda _: clamp(site, v, -0.5, 0.5, **where),
                lambda _: swap(site, v, w, **where),
            ]
        )
    )


_NARROW = (SiteKind.HEAD, SiteKind.PATTERN, SiteKind.NEURONS)


def other_of(llm: Any) -> Any:
    other = llm.copy()
    other.run_tokens(OTHER)
    return other


def reads(llm: Any) -> list[torch.Tensor]:
    found = [llm.logits()]
    for layer in range(N_LAYERS):
        found += [llm.residual_in(layer), llm.residual_after_attn(layer), llm.ffn_out(layer)]
        found += [llm.attention_matrix(row, layer, n) for row in (0, 1) for n in range(N_HEADS)]
        found += [llm.neuron_activations(0, layer, 2), llm.attention_output(0, layer, 2, 1)]
    return found


@settings(max_examples=60, deadline=None)
@given(makers=st.lists(made(), min_size=1, max_size=5))
def test_remote_is_local_to_the_bit_and_so_is_the_report(server: Server, makers: list[Any]) -> None:
    twin = tiny().copy()
    twin.run_tokens(ROWS, edits=[make(other_of(tiny())) for make in makers])
    with RemoteTransparentLlm(server.address) as llm:
        other = other_of(llm)
        llm.run_tokens(ROWS, edits=[make(other) for make in makers])
        assert all(map(torch.equal, reads(llm), reads(twin)))
        assert llm.effects() == twin.effects()
        _require_rows(llm)


def _require_rows(llm: RemoteTransparentLlm) -> None:
    """What became of each row is what the logits of two runs say, read and compared here."""
    plain = llm.copy()
    plain.run_tokens(ROWS)
    edited, unedited = llm.logits().double(), plain.logits().double()
    for row, found in enumerate(llm.effects().rows):
        p, q = edited[row, LENGTHS[row] - 1].softmax(0), unedited[row, LENGTHS[row] - 1].softmax(0)
        wanted = math.fsum((p * (p / q).log()).tolist())
        assert found.kl == pytest.approx(wanted, abs=1e-6, rel=1e-4)
        assert p[found.top_token] == pytest.approx(float(p.max()), rel=1e-5)
        assert q[found.other_top_token] == pytest.approx(float(q.max()), rel=1e-5)


SITES_READ: dict[SiteKind, Any] = {
    SiteKind.RESIDUAL_IN: lambda llm, site, row: llm.residual_in(site.layer)[row],
    SiteKind.RESIDUAL_OUT: lambda llm, site, row: llm.residual_out(site.layer)[row],
    SiteKind.RESIDUAL_AFTER_ATTN: lambda llm, site, row: llm.residual_after_attn(site.layer)[row],
    SiteKind.FFN_OUT: lambda llm, site, row: llm.ffn_out(site.layer)[row],
    SiteKind.ATTN_OUT: lambda llm, site, row: torch.stack(
        [llm.attention_output(row, site.layer, pos) for pos in range(LENGTHS[row])]
    ),
    SiteKind.PATTERN: lambda llm, site, row: llm.attention_matrix(row, site.layer, site.head),
    SiteKind.NEURONS: lambda llm, site, row: torch.stack(
        [llm.neuron_activations(row, site.layer, pos)[list(site.neurons)] for pos in range(LENGTHS[row])]
    ),
}


@settings(max_examples=60, deadline=None)
@given(make=made())
def test_the_report_of_an_edit_is_what_two_runs_reads_differ_in(server: Server, make: Any) -> None:
    with RemoteTransparentLlm(server.address) as llm:
        edit = make(other_of(llm))
        if edit.site.kind is SiteKind.HEAD:  # its mixture is no value that is read
            return
        llm.run_tokens(ROWS, edits=[edit])
        plain = llm.copy()
        plain.run_tokens(ROWS)
        (effect,) = llm.effects()
        before, after = (_selected(one, edit) for one in (plain, llm))
        delta = after.double() - before.double()
        assert (effect.selected, effect.changed) == (before.numel(), int((after != before).sum()))
        close = {"rel": 1e-4, "abs": 1e-5}
        assert effect.delta_norm == pytest.approx(float(delta.norm()), **close)
        assert effect.norm == pytest.approx(float(before.double().norm()), **close)
        assert effect.max_delta == pytest.approx(float(delta.abs().max()), **close)
        assert llm.effects().is_none == (not delta.any())


def _selected(llm: Any, edit: Intervention) -> torch.Tensor:
    """The elements of an edit, read from a run."""
    found = []
    for row in [0, 1] if edit.rows == "all" else edit.rows:
        length = LENGTHS[row]
        at = {"all": list(range(length)), "last": [length - 1]}.get(str(edit.positions))
        positions = [position % length for position in edit.positions] if at is None else at  # type: ignore[union-attr]
        found.append(SITES_READ[edit.site.kind](llm, edit.site, row)[positions].flatten())
    return torch.cat(found)


def in_other_words(edit: Intervention) -> Intervention:
    """The same edit, written in another way."""
    site, rows = edit.site, (0, 1) if edit.rows == "all" else edit.rows
    layer = site.layer % N_LAYERS
    if site.kind is SiteKind.RESIDUAL_OUT and layer < N_LAYERS - 1:
        site = residual_in(layer + 1)
    elif site.kind is SiteKind.RESIDUAL_IN and layer > 0:
        site = residual_out(layer - 1)
    else:
        site = dataclasses.replace(site, layer=site.layer - N_LAYERS if site.layer >= 0 else layer)
    positions = edit.positions
    if positions == "last":
        positions = (-1,)
    elif not isinstance(positions, str) and len(rows) == 1:
        length = LENGTHS[rows[0]]
        positions = tuple(p - length if p >= 0 else p + length for p in positions)
    return dataclasses.replace(edit, site=site, rows=tuple(row - len(ROWS) for row in rows), positions=positions)


def otherwise(edit: Intervention) -> Intervention:
    """Another edit: of another place, or that does something else."""
    operation = edit.operation
    if isinstance(operation, Scale):
        return dataclasses.replace(edit, operation=Scale(math.nextafter(operation.factor, math.inf)))
    if isinstance(operation, Noise):
        return dataclasses.replace(edit, operation=Noise(operation.sd, operation.seed + 1))
    if isinstance(operation, Add):
        return dataclasses.replace(edit, operation=dataclasses.replace(operation, factor=operation.factor + 2.0**-40))
    if isinstance(operation, SetTo):
        return dataclasses.replace(edit, operation=SetTo(literal(vector(77))))
    kind = SiteKind.FFN_OUT if edit.site.kind is not SiteKind.FFN_OUT else SiteKind.ATTN_OUT
    return dataclasses.replace(edit, site=Site(kind, edit.site.layer))


@settings(max_examples=60, deadline=None)
@given(makers=st.lists(made(), min_size=1, max_size=4), index=st.integers(0, 3))
def test_a_run_is_named_by_what_its_edits_mean(server: Server, makers: list[Any], index: int) -> None:
    with RemoteTransparentLlm(server.address) as llm:
        other = other_of(llm)
        edits = [make(other) for make in makers]
        changed = list(edits)
        changed[index % len(edits)] = otherwise(edits[index % len(edits)])
        names = []
        for written in (edits, list(map(in_other_words, edits)), changed, []):
            llm.run_tokens(ROWS, edits=written)
            names.append(llm.run_id())
        assert names[0] == names[1]
        assert len(set(names[1:])) == 3


def test_64_clients_of_two_owners_with_mixed_runs_get_their_own_values(tmp_path: Path) -> None:
    """Each its own run, plain or edited, with a vector of its owner under a name that means another to the other."""
    tokens = BearerTokenFile(tmp_path / "tokens", "alice", "bob")
    vectors = {owner: vector(n) for n, owner in enumerate(tokens.bearer_tokens)}

    def edits_of(n: int, kept: Any) -> list[Intervention]:
        if n % 4 == 0:
            return []
        if n % 4 == 1:
            return [add(residual_in(1), kept, float(n), positions=[n % 7], rows=[0])]
        if n % 4 == 2:
            return [zero(head(n % 2, n % 3), rows=[1]), noise(residual_in(0), 0.1, n, positions="all")]
        return [scale(ffn_out(0), 1.0 + n / 64, positions="last"), add(residual_out(0), kept, positions=[0], rows=[1])]

    rows = [[[n + 1, *ROWS[0]], [n + 2, *ROWS[1]]] for n in range(64)]
    wanted = []
    for n in range(64):
        twin = tiny().copy()
        owner = list(vectors)[n % 8 < 4]
        twin.run_tokens(rows[n], edits=edits_of(n, vectors[owner]))
        wanted.append((twin.logits(), twin.effects()))
    with running(tokens_file=tokens.path, queue_length=128) as server:

        def one(n: int) -> bool:
            owner = list(vectors)[n % 8 < 4]
            with RemoteTransparentLlm(server.address, token=tokens.bearer_tokens[owner]) as llm:
                llm.run_tokens(rows[n], edits=edits_of(n, llm.keep_vector("v", vectors[owner])))
                logits, effects = wanted[n]
                assert llm.effects() == effects
                return torch.equal(llm.logits(), logits)

        with ThreadPoolExecutor(64) as clients:
            assert all(clients.map(one, range(64)))
