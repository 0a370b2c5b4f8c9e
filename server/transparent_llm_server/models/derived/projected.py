"""Parts of a layer along a direction, and their lengths, without the parts: no vector of d_model for each of them.

In float32, or float64 for a model of that dtype; between pieces it is asked whether to go on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from transparent_llm.analysis.interrupt import check
from transparent_llm.factors import Rows
from transparent_llm.runtime.numerics import wide

Spans = Sequence[tuple[int, int]]
"""(start, stop) of neurons that are computed."""

_PIECE_BYTES = 32 * 2**20


def heads_along(w_o: torch.Tensor, pattern: torch.Tensor, value: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """[head source] of weights [head d_head d_model], probabilities [head source] of one target, values
    [source kv_head d_head] and a direction [d_model]."""
    found = torch.empty(pattern.shape, dtype=along.dtype, device=pattern.device)
    for head in range(len(found)):
        check()
        torch.mv(value[:, kv_head(value, head, len(w_o))].to(along), w_o[head].to(along) @ along, out=found[head])
    return found.mul_(pattern)


def neurons_along(activations: torch.Tensor, spans: Spans, rows: Rows, along: torch.Tensor, count: int) -> torch.Tensor:
    """[d_ffn] of activations, output vectors and a direction [d_model]; neurons outside of the spans give 0."""
    found = torch.zeros(count, dtype=along.dtype, device=activations.device)
    done, step = 0, max(1, _PIECE_BYTES // (len(along) * along.dtype.itemsize))
    for first, last in spans:
        for start in range(first, last, step):
            check()
            stop = min(start + step, last)
            found[start:stop] = (rows(start, stop).to(along) @ along) * activations[done : done + stop - start]
            done += stop - start
    return found


def value_weighted_norms(
    w_o: torch.Tensor, pattern: torch.Tensor, value: torch.Tensor, gain: torch.Tensor | None
) -> torch.Tensor:
    """[head target source] of weights, probabilities [head target source], values, and what lies between attention and
    the residual stream: [target d_model], a scalar or nothing."""
    found = wide(pattern).clone()
    for head, norms in enumerate(found):
        check()
        offered = wide(value[:, kv_head(value, head, len(w_o))]) @ wide(w_o[head])
        norms *= _lengths(offered, gain)
    return found


def _lengths(offered: torch.Tensor, gain: torch.Tensor | None) -> torch.Tensor:
    """Of vectors [source d_model] that each target multiplies by a gain of its own: [target source], or [source]."""
    if gain is None or gain.ndim == 0:
        lengths = offered.norm(dim=-1)
        return lengths if gain is None else lengths * gain.abs()
    return (gain.to(offered).square() @ offered.square().T).sqrt()


def kv_head(value: torch.Tensor, head: int, n_heads: int) -> int:
    """Which of the value heads [.. kv_head d_head], shared among query heads, a query head reads."""
    return head * value.shape[-2] // n_heads
