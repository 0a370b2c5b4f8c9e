"""Normal numbers, each found from its coordinates alone: in any batch, on any machine, with any library the same bits.

A coordinate is mixed to 64 bits as SplitMix64 does (Steele, Lea, Flood, Fast Splittable Pseudorandom Number Generators,
2014), and these become a normal number by the inverse of its distribution (Wichura, Algorithm AS 241, 1988: PPND7, to
about 7 digits). Only what IEEE 754 rounds in one way is used: sums, products, quotients, square roots.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from transparent_llm_server.models.forward.cancellation import raise_if_cancelled

_Bits = NDArray[np.uint64]
_Floats = NDArray[np.float64]

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_MIX = ((30, np.uint64(0xBF58476D1CE4E5B9)), (27, np.uint64(0x94D049BB133111EB)))
_AT_ONCE = 2**16
"""Numbers, so that what they are made of stays in the processor's cache."""

_CENTRAL = (
    (3.3871327179e0, 5.0434271938e1, 1.5929113202e2, 5.9109374720e1),
    (1.0, 1.7895169469e1, 7.8757757664e1, 6.7187563600e1),
)
_TAIL = (
    (1.4234372777e0, 2.7568153900e0, 1.3067284816e0, 1.7023821103e-1),
    (1.0, 7.3700164250e-1, 1.2021132975e-1),
)
_FAR_TAIL = (
    (6.6579051150e0, 3.0812263860e0, 4.2868294337e-1, 1.7337203997e-2),
    (1.0, 2.4197894225e-1, 1.2258202635e-2),
)
_LOGARITHM = tuple(1.0 / (2 * n + 1) for n in range(12))
"""log(m) = 2 artanh(s) = 2 s (1 + s^2 / 3 + s^4 / 5 + ...), s = (m - 1) / (m + 1)."""


def normal(
    seed: int, site: str, rows: Sequence[int], positions: Sequence[int], elements: Sequence[int]
) -> torch.Tensor:
    """Standard normal numbers [place element] in float32, of places (row, position) of a site."""
    key = int.from_bytes(hashlib.sha256(f"{seed}/{site}".encode()).digest()[:8], "big")
    of_rows = _mixed(np.uint64(key) + _steps(rows))
    places, steps = _mixed(of_rows + _steps(positions)), _steps(elements)
    drawn = torch.empty(len(rows), len(elements), dtype=torch.float32)
    into = drawn.numpy()
    at_once = max(1, _AT_ONCE // len(elements))
    for start in range(0, len(rows), at_once):
        raise_if_cancelled()
        part = slice(start, start + at_once)
        into[part] = _of_uniform(_uniform(_mixed(places[part, None] + steps)))
    return drawn


def _steps(coordinates: Sequence[int]) -> _Bits:
    found: _Bits = (np.asarray(coordinates, dtype=np.uint64) + np.uint64(1)) * _GAMMA
    return found


def _mixed(bits: _Bits) -> _Bits:
    for shift, factor in _MIX:
        bits ^= bits >> np.uint64(shift)
        bits *= factor
    bits ^= bits >> np.uint64(31)
    return bits


def _uniform(bits: _Bits) -> _Floats:
    """Between 0 and 1, neither of them, 2^-52 apart."""
    found: _Floats = ((bits >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52
    return found


def _of_uniform(p: _Floats) -> _Floats:
    """The normal number below which there is so much of the distribution."""
    q = p - 0.5
    found = q * _ratio(_CENTRAL, 0.180625 - q * q)
    is_tail = np.abs(q) > 0.425
    outside = q[is_tail]
    r = np.sqrt(-_log(np.minimum(p[is_tail], 1.0 - p[is_tail])))
    tail = np.where(r <= 5.0, _ratio(_TAIL, r - 1.6), _ratio(_FAR_TAIL, r - 5.0))
    found[is_tail] = np.copysign(tail, outside)
    return found


def _ratio(polynomials: tuple[Sequence[float], Sequence[float]], x: _Floats) -> _Floats:
    above, below = (_polynomial(each, x) for each in polynomials)
    found: _Floats = above / below
    return found


def _polynomial(coefficients: Sequence[float], x: _Floats) -> _Floats:
    """Of the powers of x, by Horner's rule."""
    found: _Floats = np.full_like(x, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        found *= x
        found += coefficient
    return found


def _log(x: _Floats) -> _Floats:
    m, exponent = np.frexp(x)
    is_small = m < math.sqrt(0.5)
    m, exponent = np.where(is_small, 2.0 * m, m), exponent - is_small
    s = (m - 1.0) / (m + 1.0)
    found: _Floats = 2.0 * s * _polynomial(_LOGARITHM, s * s) + exponent * math.log(2.0)
    return found
