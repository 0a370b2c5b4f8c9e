"""The two decompositions: products that are never built whole unless somebody wants them whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch

from transparent_llm.factors import AttnFactors, FfnFactors, Rows
from transparent_llm_server.models.value import Factor, Piece, Stored, Value, as_slice, cut_ranges


@dataclass(frozen=True)
class AttnParts:
    """Where `decomposed_attn` of one batch row and layer comes from."""

    pattern: torch.Tensor
    """[head target source]"""

    value_out: Callable[[range], torch.Tensor]
    """What each source offers through some heads [source head d_model], float32."""

    gain: torch.Tensor | None
    """[target d_model], a scalar or None; float32."""

    d_model: int


class DecomposedAttn(Value):
    """[target source head d_model], or a part of it."""

    def __init__(self, parts: AttnParts, ranges: Sequence[range] | None = None) -> None:
        n_heads, n_targets, n_sources = parts.pattern.shape
        self._parts = parts
        self._ranges = ranges or [range(n) for n in (n_targets, n_sources, n_heads, parts.d_model)]
        self._targets, self._sources, self._heads, self._d_model = map(as_slice, self._ranges)
        self.shape, self.dtype = tuple(map(len, self._ranges)), parts.pattern.dtype
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
                yield Piece(shape, partial(self._piece, shape, targets, sources))

    def tensor(self) -> torch.Tensor:
        """The product, each element written once."""
        return self._attn_factors().product()

    def factors(self) -> tuple[Factor, ...]:
        """Pattern, value_out and, where it is not 1, gain."""
        held = self._attn_factors()
        found = [
            Factor("pattern", ("head", "target", "source"), Stored(held.pattern)),
            Factor("value_out", ("source", "head", "d_model"), Stored(held.value_out)),
        ]
        if held.gain is not None:
            found.append(Factor("gain", ("target", "d_model")[: held.gain.ndim], Stored(held.gain)))
        return tuple(found)

    def _attn_factors(self) -> AttnFactors:
        if self._factors is None:
            gain = self._parts.gain
            self._factors = AttnFactors(
                self._parts.pattern[self._heads, self._targets, self._sources],
                self._parts.value_out(self._ranges[2])[self._sources, :, self._d_model],
                gain[self._targets, self._d_model] if gain is not None and gain.ndim else gain,
            )
        return self._factors

    @torch.no_grad()
    def _piece(self, shape: tuple[int, ...], targets: slice, sources: slice) -> torch.Tensor:
        out = torch.empty(shape, dtype=self.dtype, device=self._parts.pattern.device)
        self._attn_factors().write(out, targets, sources)
        return out


class NeuronRows(Value):
    """A row of d_model elements for each neuron, made for a stretch of neurons at a time."""

    def __init__(
        self, whole: tuple[int, int], dtype: torch.dtype, rows: Rows, ranges: Sequence[range] | None = None
    ) -> None:
        self._whole, self._rows, self.dtype = whole, rows, dtype
        self._ranges = ranges or [range(n) for n in whole]
        self.shape = tuple(map(len, self._ranges))

    def select(self, index: Sequence[slice]) -> Value:
        """Some neurons, some coordinates."""
        return NeuronRows(self._whole, self.dtype, self._rows, cut_ranges(self._ranges, index))

    def pieces(self, max_bytes: int) -> Iterator[Piece]:
        """Some neurons each; rows are made whole before they are cut, and with those that a step leaves out."""
        neurons, coordinates = self._ranges
        n = max(1, max_bytes // max(1, self._whole[1] * self.dtype.itemsize * neurons.step))
        for start in range(0, len(neurons), n):
            part = neurons[start : start + n]
            yield Piece((len(part), len(coordinates)), partial(self._piece, part))

    def tensor(self) -> torch.Tensor:
        """All of them."""
        return self._piece(self._ranges[0])

    @torch.no_grad()
    def _piece(self, neurons: range) -> torch.Tensor:
        first, stop = (neurons[0], neurons[-1] + 1) if neurons else (0, 0)
        return self._rows(first, stop)[:: neurons.step, as_slice(self._ranges[1])]


class DecomposedFfn(NeuronRows):
    """[hidden d_model]: activations times output vectors. A part of it has no factors: see ENCODING_FACTORED."""

    def __init__(
        self, shape: tuple[int, int], dtype: torch.dtype, compute: Callable[[], FfnFactors], rows: Rows
    ) -> None:
        super().__init__(shape, dtype, self._product_rows)
        self._compute, self._weights = compute, rows
        self._factors: FfnFactors | None = None

    def tensor(self) -> torch.Tensor:
        """The product, each element written once."""
        return self._ffn_factors().product(self.shape[1], self._weights)

    def factors(self) -> tuple[Factor, ...]:
        """Activations, and where there are such: gain, spans of neurons."""
        held = self._ffn_factors()
        found = [Factor("activations", ("d_ffn",), Stored(held.activations))]
        if held.gain is not None:
            found.append(Factor("gain", ("d_model",)[: held.gain.ndim], Stored(held.gain)))
        if held.spans != ((0, held.count),):
            found.append(Factor("spans", ("span", "bound"), Stored(torch.tensor(held.spans, dtype=torch.int64))))
        return tuple(found)

    def _ffn_factors(self) -> FfnFactors:
        if self._factors is None:
            self._factors = self._compute()
        return self._factors

    def _product_rows(self, start: int, stop: int) -> torch.Tensor:
        factors = self._ffn_factors()
        out = torch.empty((stop - start, self.shape[1]), dtype=self.dtype, device=factors.activations.device)
        factors.write(out, start, self._weights)
        return out
