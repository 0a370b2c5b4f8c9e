"""What heads brought from each source, along a direction, and how long it is, without [source head d_model] of it.

In float32, or float64 for a model of that dtype; between heads it is asked whether to go on.
"""

from __future__ import annotations

import torch

from transparent_llm.analysis.interrupt import check
from transparent_llm.runtime.numerics import wide


def heads_along(w_o: torch.Tensor, pattern: torch.Tensor, value: torch.Tensor, along: torch.Tensor) -> torch.Tensor:
    """[head source] of weights [head d_head d_model], probabilities [head source] of one target, values
    [source kv_head d_head] and a direction [d_model]."""
    found = torch.empty(pattern.shape, dtype=along.dtype, device=pattern.device)
    for head in range(len(found)):
        check()
        torch.mv(value[:, kv_head(value, head, len(w_o))].to(along), w_o[head].to(along) @ along, out=found[head])
    return found * pattern


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
        lengths: torch.Tensor = offered.norm(dim=-1)
        return lengths if gain is None else lengths * gain.abs()
    squares: torch.Tensor = gain.to(offered).square() @ offered.square().T
    return squares.sqrt()


def kv_head(value: torch.Tensor, head: int, n_heads: int) -> int:
    """Which of the value heads [.. kv_head d_head], shared among query heads, a query head reads."""
    return head * value.shape[-2] // n_heads
