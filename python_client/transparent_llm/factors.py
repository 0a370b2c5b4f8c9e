"""Values that are products: the factors travel and are kept, the product is made where it is wanted.

The product *is* the definition of the value, for a model in this process and for one behind a server: taken in
float32, from left to right, rounded once to the model's dtype. So whoever multiplies gets the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from transparent_llm.runtime import memory

_BLOCK_BYTES = 8 * 2**20
"""Where more than one pass is needed, it is made over pieces that stay in the processor's cache."""

Rows = Callable[[int, int], torch.Tensor]
"""Output vectors of the neurons from a first to before a last one [n d_model]."""


@dataclass(frozen=True)
class AttnFactors:
    """`decomposed_attn[t, s, h] = pattern[h, t, s] * value_out[s, h] * gain[t]`."""

    pattern: torch.Tensor
    """[head target source]; its dtype is that of the value."""

    value_out: torch.Tensor
    """What each source offers through each head [source head d_model], float32."""

    gain: torch.Tensor | None = None
    """What lies between attention and the residual stream [target d_model], or a scalar; float32. None: nothing."""

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the product: [target source head d_model]."""
        n_heads, n_targets, n_sources = self.pattern.shape
        return n_targets, n_sources, n_heads, self.value_out.shape[2]

    @property
    def nbytes(self) -> int:
        """Bytes of the factors together, not of their product."""
        return self.pattern.nbytes + self.value_out.nbytes + (0 if self.gain is None else self.gain.nbytes)

    def product(self) -> torch.Tensor:
        """The value, each element written once."""
        out = memory.empty(self.shape, self.pattern.dtype, self.pattern.device)
        n_targets, n_sources = self.shape[:2]
        step = max(1, n_targets) if self._in_one_pass else self._targets_per_block()
        for start in range(0, n_targets, step):
            self.write(out[start : start + step], slice(start, start + step), slice(0, n_sources))
        return out

    def write(self, out: torch.Tensor, targets: slice, sources: slice) -> None:
        """The part of the product for some targets and sources, into `out`."""
        weights = self.pattern[:, targets, sources].permute(1, 2, 0).unsqueeze(-1)
        if self._in_one_pass:
            torch.mul(weights, self.value_out[sources], out=out)
            return
        scratch = out if out.dtype == torch.float32 else torch.empty(out.shape, dtype=torch.float32, device=out.device)
        torch.mul(weights.float(), self.value_out[sources], out=scratch)
        if self.gain is not None:
            scratch.mul_(self.gain[targets, None, None, :] if self.gain.ndim else self.gain)
        if scratch is not out:
            out.copy_(scratch)

    @property
    def _in_one_pass(self) -> bool:
        return self.gain is None and self.pattern.dtype == torch.float32

    def _targets_per_block(self) -> int:
        _, n_sources, n_heads, d_model = self.shape
        return max(1, _BLOCK_BYTES // max(1, n_sources * n_heads * d_model * 4))


@dataclass(frozen=True)
class FfnFactors:
    """`decomposed_ffn_out[n] = activations[n] * output vector of n * gain`; the output vectors are the model's."""

    activations: torch.Tensor
    """Of the neurons within the spans, one span after the other; its dtype is that of the value."""

    count: int
    """Number of neurons: the length of the value."""

    spans: tuple[tuple[int, int], ...]
    """(start, stop) of neurons that are computed. All others are zero: experts that were not chosen."""

    gain: torch.Tensor | None = None
    """[d_model], or a scalar; float32. None: nothing."""

    @property
    def are_whole(self) -> bool:
        """Whether the spans lie within the value, apart from each other, and have an activation for each neuron."""
        ends = [0, *(end for span in sorted(self.spans) for end in span), self.count]
        n_neurons = sum(stop - start for start, stop in self.spans)
        return ends == sorted(ends) and n_neurons == self.activations.shape[0]

    def write(self, out: torch.Tensor, start: int, rows: Rows) -> None:
        """The part of the value from neuron `start` on, as much as `out` [n d_model] holds."""
        stop, position = start + out.shape[0], 0
        if not self._all_computed:
            out.zero_()
        for span_start, span_stop in self.spans:
            low, high = max(start, span_start), min(stop, span_stop)
            if low < high:
                activations = self.activations[position + low - span_start : position + high - span_start]
                self._write_span(out[low - start : high - start], activations, rows(low, high))
            position += span_stop - span_start

    def product(
        self, d_model: int, rows: Rows, hidden: slice | None = None, coordinates: slice | None = None
    ) -> torch.Tensor:
        """The value [count d_model], or some neurons and coordinates of it; the others are not computed."""
        neurons, columns = range(self.count)[hidden or slice(None)], coordinates or slice(None)
        width = len(range(d_model)[columns])
        out = memory.empty((len(neurons), width), self.activations.dtype, self.activations.device)
        step = max(1, _BLOCK_BYTES // max(1, d_model * 4 * neurons.step))
        for start in range(0, len(neurons), step):
            part, block = neurons[start : start + step], out[start : start + step]
            if neurons.step == 1 and width == d_model:
                self.write(block, part.start, rows)
                continue
            whole = torch.empty((part[-1] + 1 - part[0], d_model), dtype=out.dtype, device=out.device)
            self.write(whole, part[0], rows)
            block.copy_(whole[:: part.step, columns])
        return out

    @property
    def _all_computed(self) -> bool:
        return self.spans == ((0, self.count),)

    def _write_span(self, out: torch.Tensor, activations: torch.Tensor, weights: torch.Tensor) -> None:
        scratch = out if out.dtype == torch.float32 else torch.empty(out.shape, dtype=torch.float32, device=out.device)
        torch.mul(activations.float()[:, None], weights.float(), out=scratch)
        if self.gain is not None:
            scratch.mul_(self.gain)
        if scratch is not out:
            out.copy_(scratch)
