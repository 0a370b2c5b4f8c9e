"""The decompositions of any `TransparentLlm` in bounded blocks: as factors where it has them, else as what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch

from transparent_llm.analysis.interrupt import check
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.factors import AttnFactors, FfnFactors, Rows
from transparent_llm.runtime.numerics import wide

BLOCK_BYTES = 32 * 2**20
"""No temporary of an analysis takes more, where a single row of it does not."""


@runtime_checkable
class HasAttnFactors(Protocol):
    """An implementation that can say what `decomposed_attn` is the product of."""

    def attn_factors(self, batch_i: int, layer: int) -> AttnFactors:
        """May share memory with the run: nobody writes to it."""


@runtime_checkable
class HasFfnFactors(Protocol):
    """An implementation that can say what `decomposed_ffn_out` is the product of."""

    def ffn_factors(self, batch_i: int, layer: int, pos: int) -> tuple[FfnFactors, Rows]:
        """May share memory with the run: nobody writes to it."""


def attn_factors(llm: TransparentLlm, batch_i: int, layer: int) -> AttnFactors:
    """What `decomposed_attn` of a row and a layer is the product of; padding is part of it. Nobody may write to it.

    Raises:
        NotSupportedError: the implementation does not say; `attn_blocks` works on it nevertheless.
    """
    if isinstance(llm, HasAttnFactors):
        return llm.attn_factors(batch_i, layer)
    raise NotSupportedError(f"{type(llm).__name__} does not say what decomposed_attn is the product of")


def attn_blocks(llm: TransparentLlm, batch_i: int, layer: int) -> Iterator[tuple[slice, AttnFactors]]:
    """Factors that give `decomposed_attn` of a row and a layer, target after target: some targets, and their factors.

    One block with all targets where the implementation has factors. Where it has none, a block for each target, whose
    value_out is the product itself, and whose pattern is 1, and 0 where that is zero: sums over sources and heads are
    the same.
    """
    if isinstance(llm, HasAttnFactors):
        factors = llm.attn_factors(batch_i, layer)
        yield slice(0, factors.pattern.shape[1]), factors
        return
    product = llm.decomposed_attn(batch_i, layer)
    for target in range(product.shape[0]):
        check()
        pattern = product[target].any(-1).T.unsqueeze(1).to(product.dtype)
        yield slice(target, target + 1), AttnFactors(pattern, wide(product[target]))


def ffn_blocks(llm: TransparentLlm, batch_i: int, layer: int, pos: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """`decomposed_ffn_out` at one position, some neurons after the other: which, and their rows [n d_model].

    Rows are in float32 (float64 in a model of that type), and their memory is used again for the next ones.
    """
    if not isinstance(llm, HasFfnFactors):
        rows = llm.decomposed_ffn_out(batch_i, layer, pos)
        step = _per_block(rows.shape[1])
        for start in range(0, rows.shape[0], step):
            check()
            part = rows[start : start + step]
            yield slice(start, start + part.shape[0]), wide(part)
        return
    factors, weights = llm.ffn_factors(batch_i, layer, pos)
    d_model, step = llm.model_info().d_model, _per_block(llm.model_info().d_model)
    block = factors.activations.new_empty((min(step, factors.count), d_model))
    for start in range(0, factors.count, step):
        check()
        part = block[: min(step, factors.count - start)]
        factors.write(part, start, weights)
        yield slice(start, start + part.shape[0]), wide(part)


def _per_block(d_model: int) -> int:
    return max(1, BLOCK_BYTES // max(1, 4 * d_model))
