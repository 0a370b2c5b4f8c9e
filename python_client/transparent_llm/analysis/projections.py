"""Parts of a layer seen along one direction: a number for each part, where the part itself is a vector.

An implementation that has its weights at hand makes such numbers without the vectors: what a head's source gives along
a direction is its value times (output weights times direction). Of others they are made from the contract's vectors.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from transparent_llm.analysis.factored import BLOCK_BYTES, HasFfnFactors, ffn_blocks
from transparent_llm.analysis.interrupt import check
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.factors import FfnFactors, Rows
from transparent_llm.runtime.numerics import wide


@runtime_checkable
class HasProjections(Protocol):
    """An implementation that gives what heads brought along a direction by itself, and biases as the model has them.

    Results are float32, or float64 for a model of that dtype. Indices and errors are those of the contract.
    """

    def heads_along(
        self, batch_i: int, layer: int, pos: int, along: Float[torch.Tensor, "d_model"]
    ) -> Float[torch.Tensor, "head source"]:
        """`decomposed_attn(batch_i, layer)[pos, source, head] . along`."""

    def attention_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What attention added to the residual stream that belongs to no head."""

    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What the feed-forward part added to the residual stream that belongs to no neuron."""

    def norms_of_values(self, batch_i: int, layer: int) -> Float[torch.Tensor, "head target source"]:
        """Length of each vector of `decomposed_attn(batch_i, layer)`."""


def heads_along(llm: TransparentLlm, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> torch.Tensor:
    """What each head added at a position, along a direction [head]."""
    if isinstance(llm, HasProjections):
        with suppress(NotSupportedError):  # of heads that were edited there are no sources, but what they added
            return llm.heads_along(batch_i, layer, pos, along).to(along).sum(dim=1)
    found = along.new_zeros(llm.model_info().n_heads)
    for head in range(len(found)):
        check()
        found[head] = llm.attention_output(batch_i, layer, pos, head).to(along) @ along
    return found


def sources_along(llm: TransparentLlm, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> torch.Tensor:
    """What each head brought from each position, along a direction [head source]."""
    if isinstance(llm, HasProjections):
        return llm.heads_along(batch_i, layer, pos, along).to(along)
    offered = llm.decomposed_attn(batch_i, layer)[pos]
    return torch.cat([part.to(along) @ along for part in _blocks(offered)]).T.contiguous()


def neurons_along(llm: TransparentLlm, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> torch.Tensor:
    """What each neuron added at a position, along a direction [d_ffn]; neurons of experts that were not chosen: 0."""
    if isinstance(llm, HasFfnFactors):
        return _along_factors(*llm.ffn_factors(batch_i, layer, pos), along)
    blocks = ffn_blocks(llm, batch_i, layer, pos)
    return torch.cat([rows.to(along) @ along for _, rows in blocks])


def _along_factors(factors: FfnFactors, rows: Rows, along: torch.Tensor) -> torch.Tensor:
    """Activation times (output vector along the direction), without the product of the two."""
    seen = along if factors.gain is None else along * factors.gain.to(along)
    found, done, step = along.new_zeros(factors.count), 0, max(1, BLOCK_BYTES // (len(along) * along.itemsize))
    for first, last in factors.spans:
        for start in range(first, last, step):
            check()
            stop = min(start + step, last)
            activations = factors.activations[done : done + stop - start].to(along)
            found[start:stop] = (rows(start, stop).to(along) @ seen) * activations
            done += stop - start
    return found


def attention_bias(llm: TransparentLlm, batch_i: int, layer: int, pos: int) -> torch.Tensor:
    """What attention added that belongs to no head [d_model]; within rounding, where the model does not give it."""
    if isinstance(llm, HasProjections):
        return llm.attention_bias(batch_i, layer, pos)
    rest = wide(llm.attention_output(batch_i, layer, pos)).clone()
    for head in range(llm.model_info().n_heads):
        check()
        rest -= wide(llm.attention_output(batch_i, layer, pos, head))
    return rest


def ffn_bias(llm: TransparentLlm, batch_i: int, layer: int, pos: int) -> torch.Tensor:
    """What the feed-forward part added that belongs to no neuron [d_model]: all of it where neurons cannot be told
    apart."""
    whole = wide(llm.ffn_out(layer)[batch_i, pos])
    try:
        if isinstance(llm, HasProjections):
            return llm.ffn_bias(batch_i, layer, pos)
        return whole - wide(llm.decomposed_ffn_out(batch_i, layer, pos)).sum(dim=0)
    except NotSupportedError:
        return whole


def value_weighted_norms(llm: TransparentLlm, batch_i: int, layer: int) -> torch.Tensor:
    """Length of what each head brought from each position to each position [head target source]."""
    if isinstance(llm, HasProjections):
        return llm.norms_of_values(batch_i, layer)
    moved = llm.decomposed_attn(batch_i, layer)
    return torch.cat([wide(part).norm(dim=-1) for part in _blocks(moved)]).permute(2, 0, 1).contiguous()


def _blocks(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    """Some rows each, whose computed product fits a block."""
    step = max(1, BLOCK_BYTES // max(1, rows[:1].numel() * 8))
    for start in range(0, len(rows), step):
        check()
        yield rows[start : start + step]
