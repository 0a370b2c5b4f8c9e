"""The two decompositions: any part, whole or in pieces or as factors, has the bits of the whole product."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.models.batch import LENGTHS, MAX_ERROR, ROWS, assert_close
from support.models.parts import indices, joined
from support.servers.servers import tiny
from transparent_llm.factors import AttnFactors, FfnFactors
from transparent_llm_server.models.derived.model import ModelValues
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.values.decompositions import (
    AttnParts,
    ByRows,
    DecomposedAttn,
    DecomposedFfn,
    FfnParts,
)
from transparent_llm_server.models.values.value import Stored, Value

FAMILIES = ["gpt2", "gemma2", "granite", "mixtral"]
"""Nothing but a product, a norm after it, a scalar after it, experts of which few are chosen."""

LAYER, POS = 1, 2
FEW = settings(deadline=None, max_examples=30)
MAX_BYTES = st.integers(0, 2000) | st.integers(0, 10**6)


@cache
def values(family: str) -> RunValues:
    """Of the standard batch, run once."""
    llm = tiny(family).copy()
    llm.run_tokens(ROWS)
    return llm.values()


def factors_by_name(value: Value) -> dict[str, torch.Tensor]:
    return {factor.name: factor.value.tensor() for factor in value.factors()}


def attn_product(value: Value) -> torch.Tensor:
    """What a client makes of the factors."""
    named = factors_by_name(value)
    return AttnFactors(named["pattern"], named["value_out"], named.get("gain")).product()


def stored(gain: torch.Tensor | None) -> Value | None:
    return None if gain is None else Stored(gain)


def ffn_factors(value: Value) -> FfnFactors:
    named, count = factors_by_name(value), value.shape[0]
    spans = named["spans"].tolist() if "spans" in named else [(0, count)]
    return FfnFactors(named["activations"], count, tuple((a, b) for a, b in spans), named.get("gain"))


def piece_bytes(value: Value, max_bytes: int) -> list[int]:
    return [math.prod(piece.shape) * value.dtype.itemsize for piece in value.pieces(max_bytes)]


# Attention


@pytest.mark.parametrize("family", FAMILIES)
def test_sources_sum_to_what_each_head_wrote(family: str) -> None:
    run = values(family)
    for row, n_tokens in enumerate(LENGTHS):
        summed = run.decomposed_attn(row, LAYER).tensor().sum(dim=1)
        for head in range(summed.shape[1]):
            written = run.attention_output(row, LAYER, n_tokens - 1, head).tensor()
            assert_close(summed[n_tokens - 1, head], written)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_sources_sum_to_the_output_of_attention(family: str) -> None:
    run = values(family)
    summed = run.decomposed_attn(0, LAYER).tensor().sum(dim=(1, 2))
    for pos in range(LENGTHS[0]):
        biased = summed[pos] + run.attention_bias(0, LAYER, pos)
        assert_close(biased, run.attention_output(0, LAYER, pos).tensor())


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), max_bytes=MAX_BYTES)
@FEW
def test_any_part_of_decomposed_attn_has_the_bits_of_the_whole(
    family: str, data: st.DataObject, max_bytes: int
) -> None:
    value = values(family).decomposed_attn(0, LAYER)
    index = data.draw(indices(value.shape), label="index")
    wanted = value.tensor()[index]
    part = value.select(index)
    assert (part.shape, part.dtype) == (tuple(wanted.shape), wanted.dtype)
    assert torch.equal(part.tensor(), wanted)
    assert torch.equal(joined(part, max_bytes), wanted)
    assert torch.equal(attn_product(part), wanted)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@FEW
def test_a_part_of_a_part_of_decomposed_attn_is_that_part(family: str, data: st.DataObject) -> None:
    value = values(family).decomposed_attn(0, LAYER)
    first = data.draw(indices(value.shape), label="first")
    wanted = value.tensor()[first]
    second = data.draw(indices(wanted.shape), label="second")
    assert torch.equal(value.select(first).select(second).tensor(), wanted[second])


@pytest.mark.parametrize("axis", range(4), ids=["target", "source", "head", "d_model"])
@pytest.mark.parametrize("family", ["gpt2", "gemma2"])
def test_no_targets_sources_heads_or_coordinates_are_an_empty_product(family: str, axis: int) -> None:
    value = values(family).decomposed_attn(0, LAYER)
    index = [slice(0, 0 if i == axis else n) for i, n in enumerate(value.shape)]
    part = value.select(index)
    assert part.shape[axis] == part.nbytes == 0
    assert part.tensor().shape == part.shape
    assert attn_product(part).shape == part.shape
    assert joined(part, 100).shape == part.shape


@pytest.mark.parametrize("family", FAMILIES)
def test_factors_of_decomposed_attn_have_the_shapes_that_are_promised(family: str) -> None:
    value = values(family).decomposed_attn(0, LAYER)
    targets, sources, heads, d_model = value.shape
    shapes = {"pattern": (heads, targets, sources), "value_out": (sources, heads, d_model)}
    if family in ("gemma2", "granite"):
        shapes["gain"] = (targets, d_model) if family == "gemma2" else ()
    found = value.factors()
    assert {factor.name: factor.value.shape for factor in found} == shapes
    assert all(len(factor.dims) == len(factor.value.shape) for factor in found)
    assert sum(factor.value.nbytes for factor in found) < value.nbytes / 8


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), max_bytes=MAX_BYTES)
@FEW
def test_no_piece_of_decomposed_attn_is_larger_than_it_may_be(family: str, data: st.DataObject, max_bytes: int) -> None:
    value = values(family).decomposed_attn(0, LAYER)
    part = value.select(data.draw(indices(value.shape), label="index"))
    one_source = math.prod(part.shape[2:]) * part.dtype.itemsize
    if part.nbytes:
        assert max(piece_bytes(part, max_bytes)) <= max(max_bytes, one_source)


class ValueOut:
    """What sources offer through heads, and through which heads it was computed, time by time."""

    def __init__(self) -> None:
        self.heads: list[list[int]] = []
        self.whole = torch.randn(6, 3, 7, generator=torch.Generator().manual_seed(0))

    def __call__(self, heads: range) -> torch.Tensor:
        self.heads.append(list(heads))
        return self.whole[:, list(heads)]

    def value(self) -> DecomposedAttn:
        return DecomposedAttn(AttnParts(torch.ones(3, 5, 6), self, None, d_model=7))


def test_factors_are_known_before_anything_of_them_is_computed() -> None:
    made = ValueOut()
    found = {factor.name: factor.value for factor in made.value().factors()}
    assert {name: value.shape for name, value in found.items()} == {"pattern": (3, 5, 6), "value_out": (6, 3, 7)}
    assert made.heads == []
    assert torch.equal(found["value_out"].tensor(), made.whole)
    assert torch.equal(found["value_out"].tensor(), made.whole)
    assert made.heads == [[0, 1, 2]]


@pytest.mark.parametrize(("heads", "steps"), [(1, [[0], [1], [2]]), (2, [[0, 1], [2]]), (3, [[0, 1, 2]])])
def test_what_is_much_work_is_done_in_steps_before_the_first_piece(heads: int, steps: list[list[int]]) -> None:
    made = ValueOut()
    max_bytes = heads * 6 * 7 * 4  # a head's part is 6 sources x 7 coordinates of float32
    done = []
    for piece in made.value().pieces(max_bytes):
        for step in piece.steps():
            step()
        done.append(piece.compute().flatten())
    assert made.heads == steps
    assert torch.equal(torch.cat(done), made.value().tensor().flatten())


def test_a_step_that_was_not_taken_is_made_up_for() -> None:
    made = ValueOut()
    (piece,) = made.value().factors()[1].value.pieces(1)
    next(iter(piece.steps()))()
    assert torch.equal(piece.compute(), made.whole)
    assert made.heads == [[0], [1, 2]]


def test_the_factors_of_chosen_experts_are_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    neurons = tiny("mixtral").bridged.layers[LAYER].neurons
    times, compute = [], neurons._active
    monkeypatch.setattr(neurons, "_active", lambda *arguments: (times.append(1), compute(*arguments))[1])
    found = {factor.name: factor.value for factor in values("mixtral").decomposed_ffn_out(1, LAYER, POS).factors()}
    assert times == []
    assert all(found[name].tensor().shape == found[name].shape for name in ("activations", "spans"))
    assert times == [1]


# Attention in other types than float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gain", ["none", "scalar", "by target"])
@given(data=st.data(), max_bytes=st.integers(0, 3000))
@FEW
def test_a_product_is_rounded_once_whichever_part_is_asked_for(
    dtype: torch.dtype, gain: str, data: st.DataObject, max_bytes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    pattern = torch.rand(3, 5, 6, generator=generator).to(dtype)
    value_out = torch.randn(6, 3, 7, generator=generator)
    gains = {"none": None, "scalar": torch.tensor(0.7), "by target": torch.randn(5, 7, generator=generator)}
    parts = AttnParts(pattern, lambda heads: value_out[:, list(heads)], stored(gains[gain]), d_model=7)
    value = DecomposedAttn(parts)
    exact = pattern.float().permute(1, 2, 0)[..., None] * value_out
    factor = gains[gain]
    if factor is not None:
        exact = exact * (factor[:, None, None, :] if factor.ndim else factor)
    index = data.draw(indices(value.shape), label="index")
    part = value.select(index)
    for got in (part.tensor(), joined(part, max_bytes), attn_product(part)):
        assert torch.equal(got, exact.to(dtype)[index])


# Feed-forward


@pytest.mark.parametrize("family", FAMILIES)
def test_neurons_sum_to_the_output_of_the_feed_forward_part(family: str) -> None:
    run = values(family)
    for pos in range(LENGTHS[0]):
        summed = run.decomposed_ffn_out(0, LAYER, pos).tensor().sum(dim=0)
        biased = summed + run.ffn_bias(0, LAYER, pos)
        assert (biased - run.ffn_out(LAYER).tensor()[0, pos]).abs().max().item() <= MAX_ERROR


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), max_bytes=MAX_BYTES)
@FEW
def test_any_part_of_decomposed_ffn_out_has_the_bits_of_the_whole(
    family: str, data: st.DataObject, max_bytes: int
) -> None:
    value = values(family).decomposed_ffn_out(1, LAYER, POS)
    index = data.draw(indices(value.shape), label="index")
    wanted = value.tensor()[index]
    part = value.select(index)
    assert (part.shape, part.dtype) == (tuple(wanted.shape), wanted.dtype)
    assert torch.equal(part.tensor(), wanted)
    assert torch.equal(joined(part, max_bytes), wanted)
    assert part.factors() == ()


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), max_bytes=MAX_BYTES)
@FEW
def test_a_client_that_multiplies_factors_gets_the_bits_of_decomposed_ffn_out(
    family: str, data: st.DataObject, max_bytes: int
) -> None:
    value = values(family).decomposed_ffn_out(1, LAYER, POS)
    rows = ModelValues(tiny(family).bridged).neuron_outputs(LAYER).tensor()
    hidden, coordinates = data.draw(indices(value.shape), label="index")
    factors, d_model = ffn_factors(value), value.shape[1]
    wanted = value.tensor()
    assert torch.equal(factors.product(d_model, lambda start, stop: rows[start:stop]), wanted)
    part = factors.product(d_model, lambda start, stop: rows[start:stop], hidden, coordinates)
    assert torch.equal(part, wanted[hidden, coordinates])
    assert torch.equal(joined(value, max_bytes), wanted)


def test_factors_of_decomposed_ffn_out_are_those_that_are_promised() -> None:
    d_model = 64
    shapes = {
        "gpt2": {"activations": (256,)},
        "gemma2": {"activations": (96,), "gain": (d_model,)},
        "granite": {"activations": (96,), "gain": ()},
        "mixtral": {"activations": (2 * 96,), "spans": (2, 2)},
    }
    for family, wanted in shapes.items():
        found = values(family).decomposed_ffn_out(1, LAYER, POS).factors()
        assert {factor.name: factor.value.shape for factor in found} == wanted
        assert all(len(factor.dims) == len(factor.value.shape) for factor in found)


def test_neurons_of_experts_that_were_not_chosen_are_zero() -> None:
    value = values("mixtral").decomposed_ffn_out(1, LAYER, POS)
    spans = factors_by_name(value)["spans"].tolist()
    chosen = torch.zeros(value.shape[0], dtype=torch.bool)
    for start, stop in spans:
        chosen[start:stop] = True
    written = value.tensor().abs().sum(dim=1) > 0
    assert chosen.sum().item() == value.shape[0] // 2
    assert not written[~chosen].any()
    assert written[chosen].all()


# Rows of neurons


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data(), max_bytes=MAX_BYTES)
@FEW
def test_any_part_of_the_output_vectors_has_the_bits_of_the_whole(
    family: str, data: st.DataObject, max_bytes: int
) -> None:
    weights = ModelValues(tiny(family).bridged)
    value = weights.neuron_outputs(LAYER)
    whole = value.tensor()
    index = data.draw(indices(value.shape), label="index")
    part = value.select(index)
    assert torch.equal(part.tensor(), whole[index])
    assert torch.equal(joined(part, max_bytes), whole[index])
    neuron = data.draw(st.integers(0, value.shape[0] - 1), label="neuron")
    assert torch.equal(weights.neuron_output(LAYER, neuron).tensor(), whole[neuron])


N_NEURONS, WIDTH, ROW_BYTES = 20, 6, 6 * 4


class Made:
    """Rows of neurons, and how many bytes of them were made at a time."""

    def __init__(self) -> None:
        self.bytes: list[int] = []

    def __call__(self, start: int, stop: int) -> torch.Tensor:
        self.bytes.append((stop - start) * ROW_BYTES)
        return torch.arange(float(N_NEURONS * WIDTH)).reshape(N_NEURONS, WIDTH)[start:stop]

    def value(self, index: Sequence[slice]) -> Value:
        return ByRows((N_NEURONS, WIDTH), torch.float32, self).select(index)

    def product(self, index: Sequence[slice]) -> Value:
        parts = FfnParts(Stored(torch.ones(N_NEURONS)), None, None, self)
        return DecomposedFfn((N_NEURONS, WIDTH), parts).select(index)


@pytest.mark.parametrize("kind", [Made.value, Made.product], ids=["rows", "product"])
@given(index=indices((N_NEURONS, WIDTH)), max_bytes=st.integers(0, 600))
@settings(deadline=None)
def test_no_more_rows_are_made_at_a_time_than_a_piece_may_have(
    kind: object, index: tuple[slice, ...], max_bytes: int
) -> None:
    assert callable(kind)
    made = Made()
    part = kind(made, index)
    joined(part, max_bytes)
    if part.nbytes:
        assert max(made.bytes) <= max(max_bytes, index[0].step * ROW_BYTES)


def test_nothing_of_a_product_is_made_before_it_is_taken() -> None:
    made = Made()
    pieces = list(made.product((slice(0, 20), slice(0, 6))).pieces(5 * ROW_BYTES))
    assert [piece.shape for piece in pieces] == [(5, 6)] * 4
    assert made.bytes == []
    pieces[2].compute()
    assert made.bytes == [5 * ROW_BYTES]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("gain", ["none", "scalar", "by coordinate"])
@given(data=st.data(), max_bytes=st.integers(0, 3000))
@FEW
def test_a_product_of_neurons_is_rounded_once_whichever_part_is_asked_for(
    dtype: torch.dtype, gain: str, data: st.DataObject, max_bytes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(20, 7, generator=generator).to(dtype)
    gains = {"none": None, "scalar": torch.tensor(0.7), "by coordinate": torch.randn(7, generator=generator)}
    spans = ((10, 15), (2, 5))  # in the order of the router's choice
    active = torch.randn(8, generator=generator).to(dtype)
    activations = torch.zeros(20, dtype=dtype)
    activations[10:15], activations[2:5] = active[:5], active[5:]
    exact = activations.float()[:, None] * rows.float()
    factor = gains[gain]
    exact = exact if factor is None else exact * factor
    parts = FfnParts(Stored(active), Stored(torch.tensor(spans)), stored(gains[gain]), lambda a, b: rows[a:b])
    value = DecomposedFfn((20, 7), parts)
    index = data.draw(indices(value.shape), label="index")
    part = value.select(index)
    assert torch.equal(value.tensor(), exact.to(dtype))
    for got in (part.tensor(), joined(part, max_bytes)):
        assert torch.equal(got, exact.to(dtype)[index])
