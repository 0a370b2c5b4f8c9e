"""The values of one run at the positions that are wanted: only these travel, where the model is remote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float

from transparent_llm.analysis.dataset.site import Site
from transparent_llm.contract import TransparentLlm


@runtime_checkable
class Fetches(Protocol):
    """A model that sends many values in one stream, each cut as it is asked for: the remote object."""

    def fetch(self, reads: Sequence[Any]) -> list[Any]:
        """Values; a read may end with the parts of axes that are wanted of it, as {axis: slice}."""

    def plan(self, reads: Sequence[Any]) -> list[Any]:
        """What they are."""

    def reading(self, *, dtype: torch.dtype | None = None) -> AbstractContextManager[Any]:
        """A block whose floating values come in that type."""


@dataclass(frozen=True)
class Block:
    """Neighbouring rows of a run of which the same positions are wanted."""

    rows: range
    positions: range

    @property
    def n_places(self) -> int:
        """Rows times positions."""
        return len(self.rows) * len(self.positions)

    def axes(self) -> dict[str, slice]:
        """As parts of axes."""
        return {
            "batch": slice(self.rows.start, self.rows.stop),
            "pos": slice(self.positions.start, self.positions.stop),
        }


def blocks(wanted: Sequence[range]) -> list[Block]:
    """As few as there can be, in the order of rows, of the positions wanted of each row."""
    found: list[Block] = []
    for row, positions in enumerate(wanted):
        if found and found[-1].positions == positions:
            found[-1] = Block(range(found[-1].rows.start, row + 1), positions)
        else:
            found.append(Block(range(row, row + 1), positions))
    return found


def values_of(
    llm: TransparentLlm, sites: Sequence[Site], wanted: Sequence[Block], dtype: torch.dtype | None
) -> dict[str, Float[torch.Tensor, "place ..."]]:
    """Of each site the values of the current run, a row for each place, block by block.

    Args:
        llm: It has been run.
        sites: What is read.
        wanted: Where.
        dtype: In which they may be sent. None: the model's.
    """
    found = _fetched(llm, sites, wanted, dtype) if isinstance(llm, Fetches) else _called(llm, sites, wanted)
    return {site.name: torch.cat(pieces) for site, pieces in found.items()}


def _fetched(
    llm: Fetches, sites: Sequence[Site], wanted: Sequence[Block], dtype: torch.dtype | None
) -> Mapping[Site, list[torch.Tensor]]:
    """In one stream."""
    reads = {site: _reads(site, wanted) for site in sites}
    with nullcontext() if dtype is None else llm.reading(dtype=dtype):
        values = iter(llm.fetch([read for of_site in reads.values() for read in of_site]))
    return {site: [_rows(site, next(values)) for _ in of_site] for site, of_site in reads.items()}


def _reads(site: Site, wanted: Sequence[Block]) -> list[tuple[Any, ...]]:
    if site.is_of_place:
        return [(site.method, *site.at(row, pos)) for row, pos in _places(wanted)]
    return [(site.method, *site.arguments, block.axes()) for block in wanted]


def _called(llm: TransparentLlm, sites: Sequence[Site], wanted: Sequence[Block]) -> Mapping[Site, list[torch.Tensor]]:
    """Method by method, whose values are in this process."""
    return {site: _called_one(llm, site, wanted) for site in sites}


def _called_one(llm: TransparentLlm, site: Site, wanted: Sequence[Block]) -> list[torch.Tensor]:
    method = getattr(llm, site.method)
    if site.is_of_place:
        return [_rows(site, method(*site.at(row, pos))) for row, pos in _places(wanted)]
    value = method(*site.arguments)
    return [_rows(site, value[block.axes()["batch"], block.axes()["pos"]]) for block in wanted]


def _places(wanted: Sequence[Block]) -> list[tuple[int, int]]:
    return [(row, pos) for block in wanted for row in block.rows for pos in block.positions]


def _rows(site: Site, value: torch.Tensor) -> torch.Tensor:
    """A row for each place, on the CPU."""
    return (value[None] if site.is_of_place else value.flatten(0, 1)).cpu()
