"""The two decompositions: products that are never built whole unless somebody wants them whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from transparent_llm.factors import AttnFactors, FfnFactors, Rows
from transparent_llm_server.models.values.value import (
    Computed,
    Factor,
    Piece,
    Step,
    Stored,
    Value,
    as_slice,
    cut_ranges,
)


@dataclass(frozen=True)
class AttnParts:
    """Where `decomposed_attn` of one batch row and layer comes from."""

    pattern: torch.Tensor
    """Attention probabilities [head target source]."""

    value_out: Callable[[range], torch.Tensor]
    """What each source offers through some heads [source head d_model], float32."""

    gain: Value | None
    """[target d_model], a scalar or None; float32."""

    d_model: int


class _ValueOut(Value):
    """[source head d_model], or a part of it: computed some heads at a time, and then there for all who hold this."""

    dtype = torch.float32

    def __init__(self, parts: AttnParts, sources: range, heads: range, coordinates: range) -> None:
        self._parts, self._heads = parts, heads
        self._cut = (as_slice(sources), slice(None), as_slice(coordinates))
        self._row_bytes = parts.pattern.shape[2] * parts.d_model * self.dtype.itemsize
        self.shape = (len(sources), len(heads), len(coordinates))
        self._held: torch.Tensor | None = None
        self._n_done = 0

    def select(self, index: Sequence[slice]) -> Value:
        """Computed whole, then cut: whoever wants a part asks for a part of the product."""
        return Computed(self.shape, self.dtype, self.tensor).select(index)

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """One, in as many steps as it takes heads."""
        yield Piece(self.shape, self.tensor, partial(self.steps, max_bytes))

    def steps(self, max_bytes: int) -> Iterator[Step]:
        """What is left to compute, some heads each."""
        n_heads = max(1, max_bytes // max(1, self._row_bytes))
        for start in range(self._n_done, len(self._heads), n_heads):
            yield partial(self._fill, start, min(start + n_heads, len(self._heads)))

    def tensor(self) -> torch.Tensor:
        """The heads that are left are computed now, and kept."""
        self._fill(self._n_done, len(self._heads))
        assert self._held is not None
        return self._held

    def _fill(self, start: int, stop: int) -> None:
        if self._held is None:
            self._held = torch.empty(self.shape, dtype=self.dtype, device=self._parts.pattern.device)
        if start < stop:
            self._held[:, start:stop] = self._parts.value_out(self._heads[start:stop])[self._cut]
        self._n_done = stop


class DecomposedAttn(Value):
    """[target source head d_model], or a part of it."""

    def __init__(self, parts: AttnParts, ranges: Sequence[range] | None = None) -> None:
        n_heads, n_targets, n_sources = parts.pattern.shape
        self._parts = parts
        self._ranges = ranges or [range(n) for n in (n_targets, n_sources, n_heads, parts.d_model)]
        self._targets, self._sources, self._heads, self._d_model = map(as_slice, self._ranges)
        self.shape, self.dtype = tuple(map(len, self._ranges)), parts.pattern.dtype
        self._value_out = _ValueOut(parts, *self._ranges[1:])
        self._factors: AttnFactors | None = None

    def select(self, index: Sequence[slice]) -> Value:
        """The product of a part of the factors."""
        return DecomposedAttn(self._parts, cut_ranges(self._ranges, index))

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """Some targets with all sources, or some sources of one target."""
        n_targets, n_sources, *row = self.shape
        rows = max(1, max_bytes // max(1, math.prod(row) * self.dtype.itemsize))
        n_t, n_s = max(1, rows // max(1, n_sources)), max(1, min(rows, n_sources))
        for t in range(0, n_targets, n_t):
            for s in range(0, n_sources, n_s):
                targets, sources = slice(t, min(t + n_t, n_targets)), slice(s, min(s + n_s, n_sources))
                shape = (targets.stop - t, sources.stop - s, *row)
                steps = partial(self._value_out.steps, max_bytes)
                yield Piece(shape, partial(self._piece, shape, targets, sources), steps)

    def tensor(self) -> torch.Tensor:
        """The product, each element written once."""
        return self._attn_factors().product()

    def factors(self) -> tuple[Factor, ...]:
        """Pattern, value_out and, where it is not 1, gain."""
        found = [
            Factor("pattern", ("head", "target", "source"), Stored(self._pattern)),
            Factor("value_out", ("source", "head", "d_model"), self._value_out),
        ]
        if self._gain is not None:
            found.append(Factor("gain", ("target", "d_model")[: len(self._gain.shape)], self._gain))
        return tuple(found)

    @property
    def _pattern(self) -> torch.Tensor:
        return self._parts.pattern[self._heads, self._targets, self._sources]

    @property
    def _gain(self) -> Value | None:
        gain = self._parts.gain
        return gain.select([self._targets, self._d_model]) if gain is not None and gain.shape else gain

    def _attn_factors(self) -> AttnFactors:
        if self._factors is None:
            gain = self._gain
            self._factors = AttnFactors(
                self._pattern, self._value_out.tensor(), None if gain is None else gain.tensor()
            )
        return self._factors

    def _piece(self, shape: tuple[int, ...], targets: slice, sources: slice) -> torch.Tensor:
        out = torch.empty(shape, dtype=self.dtype, device=self._parts.pattern.device)
        self._attn_factors().write(out, targets, sources)
        return out


class ByRows(Value):
    """A row of d_model elements for each neuron, or each position, made for a stretch of them at a time."""

    def __init__(
        self, whole: tuple[int, int], dtype: torch.dtype, rows: Rows, ranges: Sequence[range] | None = None
    ) -> None:
        self._whole, self._rows, self.dtype = whole, rows, dtype
        self._ranges = ranges or [range(n) for n in whole]
        self.shape = tuple(map(len, self._ranges))

    def select(self, index: Sequence[slice]) -> Value:
        """The part that two slices name; nothing is computed for it yet."""
        return ByRows(self._whole, self.dtype, self._rows, cut_ranges(self._ranges, index))

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """Some rows each; they are made whole before they are cut, and with those that a step leaves out."""
        rows, coordinates = self._ranges
        n = max(1, max_bytes // max(1, self._whole[1] * self.dtype.itemsize * rows.step))
        for start in range(0, len(rows), n):
            part = rows[start : start + n]
            yield Piece((len(part), len(coordinates)), partial(self._piece, part))

    def tensor(self) -> torch.Tensor:
        """All rows, made in one go."""
        return self._piece(self._ranges[0])

    def _piece(self, rows: range) -> torch.Tensor:
        first, stop = (rows[0], rows[-1] + 1) if rows else (0, 0)
        return self._rows(first, stop)[:: rows.step, as_slice(self._ranges[1])]


@dataclass(frozen=True)
class FfnParts:
    """Where `decomposed_ffn_out` of one position comes from. The values share what is computed for them."""

    activations: Value
    """Of the neurons within the spans, one span after the other."""

    spans: Value | None
    """[span bound], int64: neurons that are computed; all others are zero. None: all of them are."""

    gain: Value | None
    """[d_model], a scalar or None; float32."""

    rows: Rows
    """Gives the output vectors of a stretch of neurons."""


class DecomposedFfn(ByRows):
    """[hidden d_model]: activations times output vectors. A part of it has no factors: see ENCODING_FACTORED."""

    def __init__(self, shape: tuple[int, int], parts: FfnParts) -> None:
        super().__init__(shape, parts.activations.dtype, self._product_rows)
        self._parts = parts
        self._factors: FfnFactors | None = None

    def tensor(self) -> torch.Tensor:
        """The product, each element written once."""
        return self._ffn_factors().product(self.shape[1], self._parts.rows)

    def factors(self) -> tuple[Factor, ...]:
        """Activations, and where there are such: gain, spans of neurons."""
        parts = self._parts
        found = [Factor("activations", ("d_ffn",), parts.activations)]
        if parts.gain is not None:
            found.append(Factor("gain", ("d_model",)[: len(parts.gain.shape)], parts.gain))
        if parts.spans is not None:
            found.append(Factor("spans", ("span", "bound"), parts.spans))
        return tuple(found)

    def _ffn_factors(self) -> FfnFactors:
        if self._factors is None:
            count, parts = self.shape[0], self._parts
            spans = [[0, count]] if parts.spans is None else parts.spans.tensor().tolist()
            gain = None if parts.gain is None else parts.gain.tensor()
            self._factors = FfnFactors(
                parts.activations.tensor(), count, tuple((start, stop) for start, stop in spans), gain
            )
        return self._factors

    def _product_rows(self, start: int, stop: int) -> torch.Tensor:
        factors = self._ffn_factors()
        out = torch.empty((stop - start, self.shape[1]), dtype=self.dtype, device=factors.activations.device)
        factors.write(out, start, self._parts.rows)
        return out
