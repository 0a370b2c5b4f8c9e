"""Parts of a layer seen along one direction: a number for each part, where the part itself is a vector.

An implementation that has its weights at hand makes such numbers without the vectors: what a head's source gives along
a direction is its value times (output weights times direction). Of others they are made from the contract's vectors.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from transparent_llm.analysis.interrupt import check
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import NotSupportedError
from transparent_llm.runtime.numerics import wide

_PIECE_BYTES = 32 * 2**20


@runtime_checkable
class HasProjections(Protocol):
    """An implementation that gives parts along a direction by itself, and biases as the model has them.

    Results are float32, or float64 for a model of that dtype. Indices and errors are those of the contract.
    """

    def heads_along(
        self, batch_i: int, layer: int, pos: int, along: Float[torch.Tensor, "d_model"]
    ) -> Float[torch.Tensor, "head source"]:
        """`decomposed_attn(batch_i, layer)[pos, source, head] . along`."""

    def neurons_along(
        self, batch_i: int, layer: int, pos: int, along: Float[torch.Tensor, "d_model"]
    ) -> Float[torch.Tensor, "d_ffn"]:
        """`decomposed_ffn_out(batch_i, layer, pos) . along`."""

    def attention_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What attention added to the residual stream that belongs to no head."""

    def ffn_bias(self, batch_i: int, layer: int, pos: int) -> Float[torch.Tensor, "d_model"]:
        """What the feed-forward part added to the residual stream that belongs to no neuron."""

    def value_weighted_norms(self, batch_i: int, layer: int) -> Float[torch.Tensor, "head target source"]:
        """Length of each vector of `decomposed_attn(batch_i, layer)`."""


def heads_along(llm: TransparentLlm, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> torch.Tensor:
    """What each head added at a position, along a direction [head]."""
    if isinstance(llm, HasProjections):
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
    found = [part.to(along) @ along for part in offered.split(_rows_of_piece(offered[0]))]
    return torch.cat(found).T.contiguous()


def neurons_along(llm: TransparentLlm, batch_i: int, layer: int, pos: int, along: torch.Tensor) -> torch.Tensor:
    """What each neuron added at a position, along a direction [d_ffn]."""
    if isinstance(llm, HasProjections):
        return llm.neurons_along(batch_i, layer, pos, along).to(along)
    added = llm.decomposed_ffn_out(batch_i, layer, pos)
    found = []
    for part in added.split(_rows_of_piece(added[:1])):
        check()
        found.append(part.to(along) @ along)
    return torch.cat(found)


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
        return llm.value_weighted_norms(batch_i, layer)
    moved = llm.decomposed_attn(batch_i, layer)
    found = []
    for part in moved.split(_rows_of_piece(moved[:1])):
        check()
        found.append(wide(part).norm(dim=-1))
    return torch.cat(found).permute(2, 0, 1).contiguous()


def _rows_of_piece(row: torch.Tensor) -> int:
    return max(1, _PIECE_BYTES // max(1, row.numel() * 8))
