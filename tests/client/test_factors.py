"""Products of factors: float32 from left to right, rounded once; a part of the product has the bits of the whole."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from transparent_llm import factors
from transparent_llm.factors import AttnFactors, FfnFactors, Rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]
GAINS = ["none", "scalar", "vector"]


def gain_of(kind: str, shape: tuple[int, ...], generator: torch.Generator) -> torch.Tensor | None:
    return {
        "none": None,
        "scalar": torch.randn((), generator=generator),
        "vector": torch.randn(shape, generator=generator),
    }[kind]


def attention(
    shape: tuple[int, int, int, int], dtype: torch.dtype = torch.float32, gain: str = "none", seed: int = 0
) -> AttnFactors:
    """Factors of a product with this shape."""
    n_targets, n_sources, n_heads, d_model = shape
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.rand((n_heads, n_targets, n_sources), generator=generator).to(dtype)
    value_out = torch.randn((n_sources, n_heads, d_model), generator=generator)
    return AttnFactors(pattern, value_out, gain_of(gain, (n_targets, d_model), generator))


def attention_by_definition(held: AttnFactors) -> torch.Tensor:
    """The formula of the class, written out."""
    value = held.pattern.float().permute(1, 2, 0)[..., None] * held.value_out[None]
    if held.gain is not None:
        value = value * (held.gain[:, None, None, :] if held.gain.ndim else held.gain)
    return value.to(held.pattern.dtype)


def neurons(
    spans: tuple[tuple[int, int], ...], count: int, dtype: torch.dtype = torch.float32, gain: str = "none"
) -> tuple[FfnFactors, torch.Tensor]:
    """Factors of a product of `count` neurons, and the output vectors of all of them."""
    generator = torch.Generator().manual_seed(count)
    activations = torch.randn(sum(stop - start for start, stop in spans), generator=generator).to(dtype)
    weights = torch.randn((count, 5), generator=generator).to(dtype)
    return FfnFactors(activations, count, spans, gain_of(gain, (5,), generator)), weights


def neurons_by_definition(held: FfnFactors, weights: torch.Tensor) -> torch.Tensor:
    activations, done = torch.zeros(held.count, dtype=held.activations.dtype), 0
    computed = torch.zeros(held.count, dtype=torch.bool)
    for start, stop in held.spans:
        activations[start:stop] = held.activations[done : done + stop - start]
        computed[start:stop] = True
        done += stop - start
    value = activations.float()[:, None] * weights.float()
    if held.gain is not None:
        value = value * held.gain
    return torch.where(computed[:, None], value, 0.0).to(held.activations.dtype)


def rows_of(weights: torch.Tensor) -> Rows:
    return lambda start, stop: weights[start:stop]


def assert_same_bits(got: torch.Tensor, wanted: torch.Tensor) -> None:
    assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
    assert torch.equal(
        *(tensor.clone(memory_format=torch.contiguous_format).view(torch.uint8) for tensor in (got, wanted))
    )


# Attention


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_is_the_formula_bit_for_bit(dtype: torch.dtype, gain: str) -> None:
    held = attention((7, 5, 3, 11), dtype, gain)
    assert held.shape == (7, 5, 3, 11)
    assert_same_bits(held.product(), attention_by_definition(held))


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_attention_in_many_blocks_is_the_same(dtype: torch.dtype, gain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = attention((7, 5, 3, 11), dtype, gain)
    for block_bytes in (1, 2 * 5 * 3 * 11 * 4, 3 * 5 * 3 * 11 * 4 + 1):
        monkeypatch.setattr(factors, "_BLOCK_BYTES", block_bytes)
        assert_same_bits(held.product(), attention_by_definition(held))


@pytest.mark.parametrize("gain", GAINS)
def test_a_large_product_in_memory_of_its_own_is_the_formula(gain: str) -> None:
    held = attention((40, 40, 8, 200), gain=gain)
    assert_same_bits(held.product(), attention_by_definition(held))


def test_half_precision_is_rounded_once() -> None:
    """Each of the three factors is near 1, so rounding in between would show."""
    pattern = torch.full((1, 1, 1), 1 + 2**-7, dtype=torch.bfloat16)
    value_out, gain = torch.full((1, 1, 1), 1 + 2**-8), torch.full((1, 1), 1 + 2**-8)
    exact = (1 + 2**-7) * (1 + 2**-8) ** 2
    got = AttnFactors(pattern, value_out, gain).product()
    rounded_in_between = (pattern * value_out.bfloat16() * gain.bfloat16()).reshape(())
    assert got.item() == torch.tensor(exact).bfloat16().item()
    assert got.item() != rounded_in_between.item()


def test_what_overflows_only_in_half_precision_does_not_overflow_on_the_way() -> None:
    pattern, value_out = torch.ones((1, 1, 1), dtype=torch.float16), torch.full((1, 1, 1), 1e6)
    assert AttnFactors(pattern, value_out, torch.tensor(1e-3)).product().item() == 1000.0


def test_a_product_of_no_position_is_empty() -> None:
    for shape in [(0, 0, 2, 3), (0, 4, 2, 3), (4, 0, 2, 3), (2, 2, 0, 3), (2, 2, 1, 0)]:
        for gain in GAINS:
            assert attention(shape, torch.bfloat16, gain).product().shape == shape


def test_factors_know_their_bytes() -> None:
    assert attention((7, 5, 3, 11)).nbytes == 4 * (7 * 5 * 3 + 5 * 3 * 11)
    assert attention((7, 5, 3, 11), torch.float16, "vector").nbytes == 2 * 7 * 5 * 3 + 4 * (5 * 3 * 11 + 7 * 11)


def test_a_part_of_a_model_with_gaps_in_memory_is_the_same() -> None:
    held = attention((8, 6, 4, 10), gain="vector")
    assert held.gain is not None
    part = AttnFactors(held.pattern[::2, 1:7:2, 3:], held.value_out[3:, ::2, ::3], held.gain[1:7:2, ::3])
    assert_same_bits(part.product(), held.product()[1:7:2, 3:, ::2, ::3])


@given(
    st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.integers(1, 6)),
    st.sampled_from(DTYPES),
    st.sampled_from(GAINS),
    st.data(),
)
@settings(deadline=None)
def test_any_part_written_alone_is_that_part_of_the_product(
    shape: tuple[int, int, int, int], dtype: torch.dtype, gain: str, data: st.DataObject
) -> None:
    held = attention(shape, dtype, gain, seed=sum(shape))
    whole = held.product()
    assert_same_bits(whole, attention_by_definition(held))
    (t, t_stop), (s, s_stop) = (
        sorted(data.draw(st.tuples(st.integers(0, n), st.integers(0, n)), label="part")) for n in shape[:2]
    )
    out = torch.empty((t_stop - t, s_stop - s, *shape[2:]), dtype=dtype)
    held.write(out, slice(t, t_stop), slice(s, s_stop))
    assert_same_bits(out, whole[t:t_stop, s:s_stop])


def test_a_part_may_be_written_into_a_larger_tensor() -> None:
    held = attention((4, 3, 2, 5), gain="vector")
    out = torch.full((4, 3, 2, 5), -1.0)
    held.write(out[1:3, 2:], slice(1, 3), slice(2, 3))
    assert_same_bits(out[1:3, 2:], held.product()[1:3, 2:])
    assert (out[0] == -1).all()
    assert (out[:, :2] == -1).all()


# Neurons


@pytest.mark.parametrize("gain", GAINS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spans", [((0, 12),), ((4, 8),), ((8, 12), (0, 4)), ((0, 4), (4, 8), (8, 12)), ()], ids=str)
def test_neurons_are_the_formula_bit_for_bit(spans: tuple[tuple[int, int], ...], dtype: torch.dtype, gain: str) -> None:
    held, weights = neurons(spans, 12, dtype, gain)
    assert_same_bits(held.product(5, rows_of(weights)), neurons_by_definition(held, weights))


@pytest.mark.parametrize("gain", GAINS)
def test_neurons_in_many_blocks_are_the_same(gain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held, weights = neurons(((8, 12), (0, 4)), 12, torch.bfloat16, gain)
    for block_bytes in (1, 20, 60, 100):
        monkeypatch.setattr(factors, "_BLOCK_BYTES", block_bytes)
        assert_same_bits(held.product(5, rows_of(weights)), neurons_by_definition(held, weights))
        part = held.product(5, rows_of(weights), slice(1, None, 3), slice(0, 2))
        assert_same_bits(part, neurons_by_definition(held, weights)[1::3, 0:2])


def test_neurons_round_half_precision_once() -> None:
    activations = torch.full((1,), 1 + 2**-7, dtype=torch.bfloat16)
    weights, gain = torch.full((1, 1), 1 + 2**-7, dtype=torch.bfloat16), torch.tensor([1 + 2**-8])
    got = FfnFactors(activations, 1, ((0, 1),), gain).product(1, rows_of(weights))
    assert got.item() == torch.tensor((1 + 2**-7) ** 2 * (1 + 2**-8)).bfloat16().item()
    assert got.item() != (activations * weights * gain.bfloat16()).item()


def test_no_output_vectors_are_asked_for_but_those_of_computed_neurons() -> None:
    held, weights = neurons(((4, 8), (12, 16)), 20)
    asked: list[tuple[int, int]] = []

    def rows(start: int, stop: int) -> torch.Tensor:
        asked.append((start, stop))
        return weights[start:stop]

    held.product(5, rows)
    assert asked == [(4, 8), (12, 16)]
    asked.clear()
    held.product(5, rows, slice(6, 14))
    assert asked == [(6, 8), (12, 14)]
    asked.clear()
    held.product(5, rows, slice(8, 12))
    assert asked == []


slices = st.builds(slice, *[st.none() | st.integers(-15, 15)] * 2, st.none() | st.integers(1, 5))


@st.composite
def any_spans(draw: st.DrawFn) -> tuple[tuple[int, int], ...]:
    """Experts of one size, in any order, perhaps with a larger shared one behind them; of 12 neurons."""
    size = draw(st.sampled_from([2, 3, 4]))
    routed = range(0, 12 - 2 * size + 1, size)
    chosen = draw(st.lists(st.sampled_from(routed), unique=True))
    shared = [(routed[-1] + size, 12)] * draw(st.integers(0, 1))
    return (*((start, start + size) for start in chosen), *shared)


@given(
    any_spans() | st.just(((0, 12),)),
    st.sampled_from(DTYPES),
    st.sampled_from(GAINS),
    st.none() | slices,
    st.none() | slices,
)
@settings(deadline=None, max_examples=200)
def test_any_neurons_and_coordinates_are_those_of_the_product(
    spans: tuple[tuple[int, int], ...],
    dtype: torch.dtype,
    gain: str,
    hidden: slice | None,
    coordinates: slice | None,
) -> None:
    held, weights = neurons(spans, 12, dtype, gain)
    whole = held.product(5, rows_of(weights))
    assert_same_bits(whole, neurons_by_definition(held, weights))
    part = held.product(5, rows_of(weights), hidden, coordinates)
    assert_same_bits(part, whole[hidden or slice(None), coordinates or slice(None)])


@given(any_spans() | st.just(((0, 12),)), st.sampled_from(GAINS), st.integers(0, 12), st.integers(0, 12))
@settings(deadline=None)
def test_any_neurons_written_alone_are_those_of_the_product(
    spans: tuple[tuple[int, int], ...], gain: str, one: int, other: int
) -> None:
    held, weights = neurons(spans, 12, torch.float16, gain)
    start, stop = sorted((one, other))
    out = torch.full((stop - start, 5), -1.0, dtype=torch.float16)
    held.write(out, start, rows_of(weights))
    assert_same_bits(out, held.product(5, rows_of(weights))[start:stop])
