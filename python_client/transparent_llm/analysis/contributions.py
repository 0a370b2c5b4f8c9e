"""What brought a vector of the residual stream about: which sources and heads, the stream before it, which neurons.

Contributions are shares, from 0 to 1, that sum to 1 for each vector; `distances.py` has their definition. A bias of an
output projection is in the whole and no part of it. Padding is no part of anything: at padded positions all is 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Real
from typing import NamedTuple

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.distances import attn_shares, checked_norm, shares_of
from transparent_llm.analysis.factored import attn_blocks, ffn_blocks
from transparent_llm.analysis.places import checked_positions
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.factors import AttnFactors
from transparent_llm.runtime.numerics import standard_numerics


class AttnContributions(NamedTuple):
    """To the stream after attention; heads and residual of a target sum to 1."""

    heads: Float[torch.Tensor, "target source head"]
    """Of what each source gave each target through each head."""

    residual: Float[torch.Tensor, "target"]
    """Of the stream that entered the layer."""


class ContributionEdges(NamedTuple):
    """One layer of the contribution graph."""

    attention: Float[torch.Tensor, "target source"]
    """Of each source to each target, over all heads."""

    attention_residual: Float[torch.Tensor, "target"]
    """Of the stream that entered the layer to the stream after attention."""

    ffn: Float[torch.Tensor, "pos"]
    """Of the feed-forward part to the stream that leaves the layer."""

    ffn_residual: Float[torch.Tensor, "pos"]
    """Of the stream after attention to the stream that leaves the layer."""


class ContributionEdgesTo(NamedTuple):
    """Those edges of one layer of the contribution graph that lead to some positions."""

    attention: Float[torch.Tensor, "target source"]
    """Of each source to each of them, over all heads."""

    attention_residual: Float[torch.Tensor, "target"]
    """Of the stream that entered the layer to the stream after attention."""

    ffn: Float[torch.Tensor, "target"]
    """Of the feed-forward part to the stream that leaves the layer."""

    ffn_residual: Float[torch.Tensor, "target"]
    """Of the stream after attention to the stream that leaves the layer."""


class NeuronContributions(NamedTuple):
    """To the stream that leaves a layer at one position: those that contribute most, in order."""

    ids: Int[torch.Tensor, "rank"]
    """Which neurons; of equal ones the lower index comes first."""

    values: Float[torch.Tensor, "rank"]
    """Their contributions."""

    residual: Float[torch.Tensor, ""]
    """Of the stream after attention; it and all neurons, those that are left out too, sum to 1."""


@standard_numerics()
def attn_contributions(llm: TransparentLlm, batch_i: int, layer: int, norm: str = "l1") -> AttnContributions:
    """Contributions of sources, through heads, and of the stream before, to the stream after attention.

    The parts are `decomposed_attn` of all sources and heads, masked ones included (each has a share of a few millionths
    of the norm), and `residual_in`; the whole is `residual_after_attn`.

    Args:
        llm: Its current run is read.
        batch_i: Row of the batch.
        layer: A negative one counts from the last.
        norm: "l1", as the definition has it, or "l2", the same with the Euclidean norm, which is less work.

    Raises:
        IndexOutOfRangeError: no such row or layer.
        InvalidRequestError: no such norm.
        NotSupportedError: the layer has no attention heads.
    """
    row, layer = Row.of(llm, batch_i), layer_of(llm, layer)
    heads = residual = None
    tokens = [(0, range(row.n_tokens))]
    for targets, of_heads, of_residual in _attention(llm, row, layer, checked_norm(norm), tokens):
        if heads is None or residual is None:
            heads = of_heads.new_zeros((row.n_pos, row.n_pos, of_heads.shape[2]), dtype=torch.float32)
            residual = of_residual.new_zeros(row.n_pos, dtype=torch.float32)
        heads[targets, : row.n_tokens] = of_heads.float()
        residual[targets] = of_residual.float()
    assert heads is not None  # a row has a token
    assert residual is not None
    return AttnContributions(heads, residual)


@standard_numerics()
def contribution_edges(
    llm: TransparentLlm,
    batch_i: int,
    layer: int,
    threshold: float = 0.0,
    renormalize: bool = False,
    norm: str = "l1",
) -> ContributionEdges:
    """One layer of the contribution graph.

    Attention as in `attn_contributions`, summed over heads; the feed-forward part with the parts `ffn_out` and
    `residual_after_attn` and the whole `residual_out`.

    Args:
        llm: Its current run is read.
        batch_i: Row of the batch.
        layer: A negative one counts from the last.
        threshold: A contribution counts if it is larger. It is compared with that of each source through each head,
            before they are summed, and with that of the stream.
        renormalize: Contributions that do not count are 0, and the others are divided by their sum; nothing left is 0.
            False: none is left out, and `threshold` does nothing here: the graph compares it with the edges.
        norm: As in `attn_contributions`.

    Raises:
        IndexOutOfRangeError: no such row or layer.
        InvalidRequestError: no such norm, or a threshold that is no number from 0 to 1.
        NotSupportedError: the layer has no attention heads, or no feed-forward part.
    """
    row, layer = Row.of(llm, batch_i), layer_of(llm, layer)
    return ContributionEdges(*_edges(llm, row, layer, range(row.n_pos), threshold, renormalize, norm))


@standard_numerics()
def contribution_edges_to(
    llm: TransparentLlm,
    batch_i: int,
    layer: int,
    targets: Sequence[int] = (),
    threshold: float = 0.0,
    renormalize: bool = False,
    norm: str = "l1",
) -> ContributionEdgesTo:
    """Those of `contribution_edges` that lead to some positions, for the work of these alone.

    Args:
        llm: Its current run is read.
        batch_i: Row of the batch.
        layer: A negative one counts from the last.
        targets: Positions of the row, negative ones from its last token. Empty: all.
        threshold: As in `contribution_edges`.
        renormalize: As there.
        norm: As there.

    Raises:
        IndexOutOfRangeError: no such row, layer or position. Otherwise as `contribution_edges`.
    """
    row, layer = Row.of(llm, batch_i), layer_of(llm, layer)
    places = checked_positions(row, targets)
    return ContributionEdgesTo(*_edges(llm, row, layer, places, threshold, renormalize, norm))


@standard_numerics()
def neuron_contributions(
    llm: TransparentLlm, batch_i: int, layer: int, pos: int, k: int = 0, norm: str = "l1"
) -> NeuronContributions:
    """The neurons that contribute most to the stream that leaves a layer at one position.

    The parts are `decomposed_ffn_out`, all neurons, and `residual_after_attn`; the whole is `residual_out`.

    Args:
        llm: Its current run is read.
        batch_i: Row of the batch.
        layer: A negative one counts from the last.
        pos: A negative one counts from the row's last token.
        k: How many.
        norm: As in `attn_contributions`.

    Raises:
        IndexOutOfRangeError: no such row, layer or position.
        InvalidRequestError: no such norm, or `k` is not from 1 to the number of neurons.
        NotSupportedError: the layer has no neurons that can be told apart.
    """
    row, layer = Row.of(llm, batch_i), layer_of(llm, layer)
    at, norm = row.position(pos), checked_norm(norm)
    whole, stream = (tensor[row.index, at] for tensor in (llm.residual_out(layer), llm.residual_after_attn(layer)))
    shares = torch.cat([shares_of(rows, whole, norm) for _, rows in ffn_blocks(llm, row.index, layer, at)])
    count = checked_count("k", k, len(shares), f"neurons of layer {layer}")
    residual = shares_of(stream.to(whole.device), whole, norm)
    total = shares.sum() + residual if at < row.n_tokens else torch.full_like(residual, torch.inf)
    values, ids = (shares / total).sort(descending=True, stable=True)
    return NeuronContributions(ids[:count].clone(), values[:count].float(), (residual / total).float())


def checked_threshold(threshold: float) -> float:
    """The threshold as a number from 0 to 1.

    Raises:
        InvalidRequestError: it is none.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, Real) or not 0 <= threshold <= 1:
        raise InvalidRequestError(
            f"threshold must be a number from 0 to 1, got {threshold!r}", metadata={"argument": "threshold"}
        )
    return float(threshold)


def pruned(parts: torch.Tensor, residual: torch.Tensor, least: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What is larger than `least` of parts [pos part] and residual [pos], divided by the sum of what is left; what is
    no number stays."""
    parts, residual = (torch.where(shares <= least, 0, shares) for shares in (parts, residual))
    total = parts.sum(1) + residual
    total = torch.where(total == 0, 1, total)
    return parts / total[:, None], residual / total


def _edges(
    llm: TransparentLlm,
    row: Row,
    layer: int,
    targets: Sequence[int],
    threshold: float,
    renormalize: bool,
    norm: str,
) -> tuple[torch.Tensor, ...]:
    """The tensors of `ContributionEdgesTo`, in its order."""
    above, norm = checked_threshold(threshold), checked_norm(norm)
    least, out = above if renormalize else 0.0, llm.residual_out(layer)
    shapes = ((len(targets), row.n_pos), *((len(targets),) for _ in range(3)))
    edges = tuple(torch.zeros(shape, dtype=torch.float32, device=out.device) for shape in shapes)
    stretches = _stretches(targets, row.n_tokens)
    for places, of_heads, of_residual in _attention(llm, row, layer, norm, stretches):
        kept, stream = pruned(of_heads.flatten(1), of_residual, least)
        edges[1][places] = stream.float()
        edges[0][places, : row.n_tokens] = kept.reshape(of_heads.shape).sum(-1).float()
    parts = (_tokens(part, row).to(out.device) for part in (llm.ffn_out(layer), llm.residual_after_attn(layer)))
    ffn, stream = (shares_of(part, _tokens(out, row), norm) for part in parts)
    total = ffn + stream
    kept, stream = pruned((ffn / total)[:, None], stream / total, least)
    for first, at in stretches:
        places, positions = slice(first, first + len(at)), slice(at.start, at.stop)
        edges[2][places], edges[3][places] = kept[positions, 0].float(), stream[positions].float()
    return edges


def _stretches(targets: Sequence[int], n_tokens: int) -> list[tuple[int, range]]:
    """Neighbouring positions together: where the first stands among the targets, and which they are; padding is left
    out."""
    found: list[tuple[int, range]] = []
    for place, target in enumerate(targets):
        if target >= n_tokens:
            continue
        if found and found[-1][1].stop == target and found[-1][0] + len(found[-1][1]) == place:
            found[-1] = (found[-1][0], range(found[-1][1].start, target + 1))
        else:
            found.append((place, range(target, target + 1)))
    return found


def _attention(
    llm: TransparentLlm, row: Row, layer: int, norm: str, stretches: Sequence[tuple[int, range]]
) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """The places of some targets, and contributions of heads [target source head] and of the stream [target] to them,
    padding cut."""
    before, after = _tokens(llm.residual_in(layer), row), _tokens(llm.residual_after_attn(layer), row)
    residual = shares_of(before.to(after.device), after, norm)
    for block, factors in attn_blocks(llm, row.index, layer):
        if block.start >= row.n_tokens:
            return
        for first, at in stretches:
            tokens = slice(max(at.start, block.start), min(at.stop, block.stop))
            if tokens.start >= tokens.stop:
                continue
            within = slice(tokens.start - block.start, tokens.stop - block.start)
            of_tokens, moved = _of_tokens(factors, within, row.n_tokens), first - at.start
            device = of_tokens.value_out.device
            for part, shares in attn_shares(of_tokens, after[tokens].to(device), norm):
                low, high = tokens.start + part.start, tokens.start + part.stop
                stream = residual[low:high].to(device)
                total = shares.sum((1, 2)) + stream
                yield slice(moved + low, moved + high), shares / total[:, None, None], stream / total


def _tokens(tensor: torch.Tensor, row: Row) -> torch.Tensor:
    return tensor[row.index, : row.n_tokens]


def _of_tokens(factors: AttnFactors, targets: slice, n_sources: int) -> AttnFactors:
    gain = factors.gain
    cut = gain[targets] if gain is not None and gain.ndim else gain
    return AttnFactors(factors.pattern[:, targets, :n_sources], factors.value_out[:n_sources], cut)
