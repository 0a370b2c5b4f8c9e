"""The noise of edits: normal numbers that their coordinates decide alone, beside plain integers and another inverse."""

from __future__ import annotations

import hashlib
import statistics

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.servers.servers import tiny
from transparent_llm.interventions import neurons, noise, residual_in, residual_out
from transparent_llm_server.models.interventions.noise import normal

SITE = "residual_in/1/None"
_64 = 2**64 - 1


def mixed(z: int) -> int:
    """SplitMix64's last steps."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _64
    return z ^ (z >> 31)


def one(seed: int, site: str, row: int, pos: int, element: int) -> float:
    """A number by itself, with Python's integers and the standard library's inverse."""
    state = int.from_bytes(hashlib.sha256(f"{seed}/{site}".encode()).digest()[:8], "big")
    for coordinate in (row, pos, element):
        state = mixed((state + (coordinate + 1) * 0x9E3779B97F4A7C15) & _64)
    return statistics.NormalDist().inv_cdf(((state >> 12) + 0.5) / 2**52)


@given(
    seed=st.integers(-(2**63), 2**63 - 1),
    row=st.integers(0, 1023),
    pos=st.integers(0, 2**17),
    element=st.integers(0, 2**16),
)
def test_each_number_is_what_its_coordinates_say(seed: int, row: int, pos: int, element: int) -> None:
    drawn = float(normal(seed, SITE, [row], [pos], [element]))
    assert drawn == pytest.approx(one(seed, SITE, row, pos, element), rel=2e-6, abs=1e-6)


def test_tails_are_those_of_a_normal_distribution() -> None:
    drawn = normal(3, SITE, [0] * 2000, list(range(2000)), range(1000)).double()
    assert abs(float(drawn.mean())) < 3e-3
    assert float(drawn.std()) == pytest.approx(1.0, abs=3e-3)
    for bound in (0.5, 1.0, 2.0, 3.0, 4.0):
        share = float((drawn > bound).double().mean())
        wanted = 1.0 - statistics.NormalDist().cdf(bound)
        assert share == pytest.approx(wanted, abs=5 * (wanted / drawn.numel()) ** 0.5)
    for shift in (1, 7):
        for axis in (0, 1):
            assert abs(float((drawn * drawn.roll(shift, axis)).mean())) < 4e-3


def test_a_number_has_the_same_bits_in_any_company() -> None:
    rows, positions = [0, 0, 1, 5, 5], [3, 4, 0, 9, 11]
    whole = normal(7, SITE, rows, positions, range(3000))
    for n, (row, pos) in enumerate(zip(rows, positions, strict=True)):
        assert torch.equal(normal(7, SITE, [row], [pos], range(3000))[0], whole[n])
        assert torch.equal(normal(7, SITE, [row], [pos], [2999, 5])[0], whole[n, [2999, 5]])
    many = normal(7, SITE, [row for row in range(6) for _ in range(12)], list(range(12)) * 6, range(3000))
    assert torch.equal(many.reshape(6, 12, -1)[rows, positions], whole)
    assert not torch.equal(normal(8, SITE, rows, positions, range(3000)), whole)
    assert not torch.equal(normal(7, "residual_in/2/None", rows, positions, range(3000)), whole)


def test_the_bits_are_known() -> None:
    """They belong to what names a run: other ones are another operation."""
    drawn = normal(1, SITE, [0, 0, 2], [0, 5, 1], [0, 1, 767])
    assert hashlib.sha256(drawn.numpy().tobytes()).hexdigest()[:16] == "b89c9ada3d179109"


def test_a_neuron_has_its_own_noise_whichever_others_are_edited() -> None:
    llm, other, plain = (tiny().copy() for _ in range(3))
    llm.run_tokens([[1, 2, 3]], edits=[noise(neurons(1), 0.5, 7, positions=[1])])
    other.run_tokens([[1, 2, 3]], edits=[noise(neurons(1, [9, 4]), 0.5, 7, positions=[1])])
    plain.run_tokens([[1, 2, 3]])
    found, few, without = (each.neuron_activations(0, 1, 1) for each in (llm, other, plain))
    assert torch.equal(found[[9, 4]], few[[9, 4]])
    assert not torch.equal(few[[9, 4]], without[[9, 4]])
    llm.run_tokens([[1, 2, 3]], edits=[noise(residual_in(1), 0.5, 7, positions=[1])])
    other.run_tokens([[9, 9, 9, 9], [1, 2, 3]], edits=[noise(residual_out(0), 0.5, 7, positions=[1], rows=[0])])
    drawn = normal(7, "residual_in/1/None", [0], [1], range(64))[0]
    plain_in = plain.residual_in(1)[0, 1]
    assert torch.equal(llm.residual_in(1)[0, 1], plain_in + 0.5 * drawn)
