"""What becomes of the elements x [n d] that an edit selects: n positions of some rows, d elements each.

Computed in float32 at least and rounded once to the type of the model, so that what changes nothing changes no bit.
"""

from __future__ import annotations

from dataclasses import dataclass

from transparent_llm.contract import TransparentLlm
from transparent_llm.interventions.vector import SaeFeature, Vector


class Operation:
    """One of those of this module."""


@dataclass(frozen=True)
class Scale(Operation):
    """x times a factor; 0 is zero ablation."""

    factor: float


@dataclass(frozen=True)
class Add(Operation):
    """x + factor * v; relative: x + factor * v * norm(x) / norm(v)."""

    vector: Vector
    factor: float
    relative: bool


@dataclass(frozen=True)
class SetTo(Operation):
    """v instead of x."""

    vector: Vector


@dataclass(frozen=True)
class Mean(Operation):
    """The mean over all tokens of a run at the same site (mean ablation)."""

    source: TransparentLlm


@dataclass(frozen=True)
class Patch(Operation):
    """What another run had at the same site, in the same rows and positions, or in those that are given instead."""

    source: TransparentLlm
    rows: tuple[int, ...] | None
    positions: tuple[int, ...] | None


@dataclass(frozen=True)
class Freeze(Operation):
    """What another run had at the same site, at all positions of all rows. Of a norm's scale: it divides by that."""

    source: TransparentLlm | None
    """None: the run of the same input without edits. It is known by the time that edits are made."""


@dataclass(frozen=True)
class Project(Operation):
    """x with the part along v times a factor: x + (factor - 1) (x.u) u, where u = v / norm(v). 0 removes it."""

    vector: Vector
    factor: float


@dataclass(frozen=True)
class Clamp(Operation):
    """x with its coordinate x.u along u = v / norm(v) brought between two bounds."""

    vector: Vector
    least: float
    most: float


@dataclass(frozen=True)
class ClampFeature(Operation):
    """x with the activation f of a feature brought between two bounds, to g: x + (g - f) d, where d is what one unit of
    it adds to the reconstruction. What the sparse autoencoder does not account for stays."""

    feature: SaeFeature
    least: float
    most: float


@dataclass(frozen=True)
class Swap(Operation):
    """x with what it has along s turned to t: x - (x.s) s + (x.s) t, for unit vectors of both."""

    origin: Vector
    target: Vector


@dataclass(frozen=True)
class Noise(Operation):
    """x + sd times a standard normal number that depends on seed, site, row, position and element alone: the same bits
    on every machine."""

    sd: float
    seed: int
