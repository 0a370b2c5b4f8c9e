"""One change of a run, and the short ways to write each kind."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal as OneOf

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.operation import (
    Add,
    Clamp,
    ClampFeature,
    Freeze,
    Mean,
    Noise,
    Operation,
    Patch,
    Project,
    Scale,
    SetTo,
    Swap,
)
from transparent_llm.interventions.site import ONLY_FROZEN, Site
from transparent_llm.interventions.vector import SaeFeature, Vector, sae_feature, vector_of
from transparent_llm.quoting import kind_of, listed
from transparent_llm.runtime.indexing import integer
from transparent_llm.runtime.numbers import finite_number
from transparent_llm.scalars import is_one

Positions = OneOf["all", "last"] | Iterable[int]
Rows = OneOf["all"] | Iterable[int]
Numbers = Vector | torch.Tensor | Iterable[float]


@dataclass(frozen=True)
class Intervention:
    """A site, the elements of it, and what becomes of them."""

    site: Site
    operation: Operation
    positions: OneOf["all", "last"] | tuple[int, ...]
    """Of each row: all its tokens, its last one, or these; negative ones count from its last token. Padding is never
    changed."""

    rows: OneOf["all"] | tuple[int, ...]
    """Of the batch."""

    def __str__(self) -> str:
        """For messages: short, without numbers of vectors."""
        positions = self.positions if isinstance(self.positions, str) else listed(self.positions)
        where = "" if self.positions == "all" else f" at {positions}"
        rows = "" if isinstance(self.rows, str) else f" of rows {listed(self.rows)}"
        return f"{type(self.operation).__name__.lower()} {self.site}{where}{rows}"


def zero(site: Site, *, positions: Positions = "all", rows: Rows = "all") -> Intervention:
    """Zero ablation."""
    return _made(site, Scale(0.0), positions, rows)


def scale(site: Site, factor: float, *, positions: Positions = "all", rows: Rows = "all") -> Intervention:
    """Times a factor."""
    return _made(site, Scale(finite_number("factor", factor)), positions, rows)


def add(
    site: Site,
    vector: Numbers,
    factor: float = 1.0,
    *,
    positions: Positions,
    rows: Rows = "all",
    relative: bool = False,
) -> Intervention:
    """Add a vector times a factor (steering).

    Args:
        site: Where.
        vector: Numbers [d], or a vector from somewhere.
        factor: Times it.
        positions: Of each row: "all", "last" or a list.
        rows: "all" or a list.
        relative: Times norm(x) / norm(vector) too, so that the factor is relative to what is there.
    """
    return _made(site, Add(vector_of(vector), finite_number("factor", factor), bool(relative)), positions, rows)


def set_to(site: Site, vector: Numbers, *, positions: Positions, rows: Rows = "all") -> Intervention:
    """A vector [d], or a row for each selected position [n d], instead of what is there."""
    return _made(site, SetTo(vector_of(vector)), positions, rows)


def mean(site: Site, source: TransparentLlm, *, positions: Positions = "all", rows: Rows = "all") -> Intervention:
    """Mean ablation: the mean over all tokens of the current run of `source`."""
    return _made(site, Mean(source), positions, rows)


def patch(
    site: Site,
    source: TransparentLlm,
    *,
    positions: Positions = "all",
    rows: Rows = "all",
    source_positions: Sequence[int] | None = None,
    source_rows: Sequence[int] | None = None,
) -> Intervention:
    """What the current run of `source` has at the same site, with its own edits (activation patching).

    Args:
        site: Where.
        source: An object of the same model whose current run is meant.
        positions: Of each row: "all", "last" or a list.
        rows: "all" or a list.
        source_positions: Where `positions` is a list: the positions of the source in their places. None: the same.
        source_rows: Where `rows` is a list: the rows of the source in their places. None: the same.
    """
    mapped = tuple(
        None if given is None else tuple(integer(name, each) for each in given)
        for name, given in (("source_rows", source_rows), ("source_positions", source_positions))
    )
    made = _made(site, Patch(source, *mapped), positions, rows)
    for name, of, given in (("source_rows", made.rows, mapped[0]), ("source_positions", made.positions, mapped[1])):
        if given is not None and (isinstance(of, str) or len(of) != len(given)):
            count = of if isinstance(of, str) else len(of)
            raise InvalidRequestError(f"{name} has {len(given)} entries for {count} that are changed: name as many")
    return made


def freeze(site: Site, source: TransparentLlm | None = None) -> Intervention:
    """What a run has at a site, whatever other edits would make of it: all positions of all rows.

    With the patterns, the scales of all norms and the feed-forward parts frozen, a model is linear in what is added to
    its residual stream. `unembed` and the logit lens go on to use the scale that a vector has itself.

    Args:
        site: Where; the scales of norms can be nothing but frozen.
        source: An object of the same model whose current run is meant, of rows as long as these. None: the same input
            without edits, which is run for it.
    """
    return _made(site, Freeze(source), "all", "all")


def project(
    site: Site, vector: Numbers, factor: float = 0.0, *, positions: Positions, rows: Rows = "all"
) -> Intervention:
    """Scale the part along a direction; by default remove it."""
    return _made(site, Project(vector_of(vector), finite_number("factor", factor)), positions, rows)


def clamp(
    site: Site, vector: Numbers, least: float, most: float, *, positions: Positions, rows: Rows = "all"
) -> Intervention:
    """Bring the coordinate along a direction between two bounds, of which one may be infinite."""
    return _made(site, Clamp(vector_of(vector), *_bounds(least, most)), positions, rows)


def clamp_feature(
    site: Site, sae: str, feature: int, least: float, most: float, *, positions: Positions, rows: Rows = "all"
) -> Intervention:
    """Bring the activation of a feature of a sparse autoencoder between two bounds, the same for one value. What it
    does not account for stays.

    Args:
        site: That of the sparse autoencoder.
        sae: Its name; see `llm.saes()`.
        feature: The feature's index.
        least: Activations under it become it.
        most: Activations over it become it. One of both may be infinite.
        positions: Of each row: "all", "last" or a list.
        rows: "all" or a list.
    """
    of = sae_feature(sae, feature)
    assert isinstance(of, SaeFeature)
    return _made(site, ClampFeature(of, *_bounds(least, most)), positions, rows)


def swap(site: Site, origin: Numbers, target: Numbers, *, positions: Positions, rows: Rows = "all") -> Intervention:
    """Turn what is along one direction to another."""
    return _made(site, Swap(vector_of(origin), vector_of(target)), positions, rows)


def noise(site: Site, sd: float, seed: int, *, positions: Positions, rows: Rows = "all") -> Intervention:
    """Add normal noise, the same for the same seed, row and position on every machine, whatever else the batch has."""
    amount = finite_number("sd", sd)
    if amount < 0:
        raise InvalidRequestError(f"sd is {sd}: a standard deviation is 0 or more")
    return _made(site, Noise(amount, integer("seed", seed)), positions, rows)


def _made(site: Site, operation: Operation, positions: Positions, rows: Rows) -> Intervention:
    if not isinstance(site, Site):
        raise InvalidRequestError(f"an edit is at a site such as residual_out(3), got {kind_of(site)}")
    if site.kind in ONLY_FROZEN and not isinstance(operation, Freeze):
        raise InvalidRequestError(f"{site} can be frozen and nothing else: write freeze({site})")
    found_positions, found_rows = _selected("positions", positions, ("all", "last")), _selected("rows", rows, ("all",))
    return Intervention(site, operation, found_positions, found_rows)  # type: ignore[arg-type]  # of these words only


def _selected(name: str, given: object, words: tuple[str, ...]) -> tuple[int, ...] | str:
    if isinstance(given, str):
        if given not in words:
            raise InvalidRequestError(f"{name} is {given!r}: it must be {' or '.join(map(repr, words))}, or a list")
        return given
    if is_one(given):
        raise InvalidRequestError(f"{name} must be {' or '.join(map(repr, words))}, or a list, got {kind_of(given)}")
    found = tuple(integer(name, each) for each in given)  # type: ignore[attr-defined]  # it is a list
    if not found:
        raise InvalidRequestError(f"{name} is empty, so nothing would be changed")
    if len(set(found)) != len(found):
        raise InvalidRequestError(f"{name} names one twice")
    return found


def _bounds(least: float, most: float) -> tuple[float, float]:
    if math.isnan(least) or math.isnan(most) or least > most:
        raise InvalidRequestError(f"clamp between {least} and {most}: the first must not be over the second")
    return float(least), float(most)
