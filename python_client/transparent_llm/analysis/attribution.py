"""Direct logit attribution: what each part of a run added to the logit of a token, or to the difference of two.

A part `c` of the residual stream adds `c . direction / scale`, where `scale` is what the final norm divided this
position by, taken as it was in this run, and `direction` is the unembedding of the token times the norm's weight (see
`Readout`). Terms are in units of logits, before a soft cap where the model has one. They sum up:

* `logit = embedding + sum of layers + norm_bias + unembed_bias` (`logit_terms`);
* a layer's term is `sum of heads + attn_bias + ffn` (`logit_attribution`);
* a head's term is the sum of its sources' (`source_attribution`);
* `ffn - ffn_bias` is the sum of the neurons' (`neuron_attribution`).

A part is what was added to the residual stream, as the contract defines it: after a norm that follows the branch
(Gemma 2 and 3, OLMo 2) and a residual multiplier (Granite). Terms of padded positions are 0. Results are float32, or
float64 for a model of that dtype.

The method is that of Elhage et al., A Mathematical Framework for Transformer Circuits (2021), and of TransformerLens,
`tools.analysis.direct_logit_attribution`. There, differences of two tokens are the same but for what biases of values
and of the norm before them give through each head: it folds that into the bias of attention, here it is the head's.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis import projections
from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.interrupt import check
from transparent_llm.analysis.readout import Direction, frozen_scale
from transparent_llm.analysis.rows import Row, layer_of
from transparent_llm.contract import TransparentLlm


class LogitTerms(NamedTuple):
    """The logit of a token at one position, and what it is the sum of."""

    logit: Float[torch.Tensor, ""]
    """Before the soft cap, where the model has one: `logits()` holds `cap * tanh(logit / cap)`."""

    embedding: Float[torch.Tensor, ""]
    """Of what enters the first layer: token, position, and whatever the model does to them."""

    layers: Float[torch.Tensor, "layer"]
    """Of everything that a layer added. Every model has it, also one whose parts of a layer cannot be told apart."""

    norm_bias: Float[torch.Tensor, ""]
    unembed_bias: Float[torch.Tensor, ""]

    scale: Float[torch.Tensor, ""]
    """What the final norm divided this position by; the same for all tokens."""


class LogitAttribution(NamedTuple):
    """What the parts of one layer added to a logit."""

    heads: Float[torch.Tensor, "head"]

    attn_bias: Float[torch.Tensor, ""]
    """What attention added that belongs to no head."""

    ffn: Float[torch.Tensor, ""]
    """All of the feed-forward part, bias included."""

    ffn_bias: Float[torch.Tensor, ""]
    """What of it belongs to no neuron; all of it, where neurons cannot be told apart."""


class NeuronAttribution(NamedTuple):
    """What the strongest neurons of one layer added to a logit."""

    ids: Int[torch.Tensor, "rank"]
    """Strongest first, whichever way they pull; of equals the lower id first."""

    values: Float[torch.Tensor, "rank"]

    rest: Float[torch.Tensor, ""]
    """The sum over all other neurons."""


def logit_terms(llm: TransparentLlm, batch_i: int, pos: int, token: int, minus_token: int | None = None) -> LogitTerms:
    """The logit of `token` at a position, or by how much it exceeds that of `minus_token`, as a sum over the model.

    Raises:
        InvalidRequestError: a token outside the vocabulary.
        IndexOutOfRangeError: row or position.
        NotSupportedError: the implementation cannot say how its logits are made.
    """
    target = _Target.of(llm, batch_i, pos, token, minus_token)
    n_layers = llm.model_info().n_layers
    stream = [target.along @ llm.residual_in(0)[target.at].to(target.along)]
    for layer in range(n_layers):
        check()
        stream.append(target.along @ llm.residual_out(layer)[target.at].to(target.along))
    so_far = torch.stack(stream)
    biases = (target.direction.norm_bias, target.direction.unembed_bias)
    norm_bias, unembed_bias = (torch.zeros_like(bias) if target.is_padding else bias for bias in biases)
    logit = so_far[-1] + norm_bias + unembed_bias
    return LogitTerms(logit, so_far[0].clone(), so_far.diff(), norm_bias, unembed_bias, target.scale)


def logit_attribution(
    llm: TransparentLlm, batch_i: int, layer: int, pos: int, token: int, minus_token: int | None = None
) -> LogitAttribution:
    """What each head of a layer, and its feed-forward part, added to the logit of `token` at a position, or to its
    difference from that of `minus_token`.

    Raises:
        InvalidRequestError: a token outside the vocabulary.
        IndexOutOfRangeError: row, layer or position.
        NotSupportedError: the layer has no heads or no separate feed-forward part (`logit_terms` has the whole layer's
            term), or the implementation cannot say how its logits are made.
    """
    target = _Target.of(llm, batch_i, pos, token, minus_token)
    layer = layer_of(llm, layer)
    along, place = target.along, (target.row.index, layer, target.pos)
    heads = projections.heads_along(llm, *place, along)
    attn_bias = projections.attention_bias(llm, *place).to(along) @ along
    ffn = llm.ffn_out(layer)[target.at].to(along) @ along
    ffn_bias = projections.ffn_bias(llm, *place).to(along) @ along
    return LogitAttribution(heads, attn_bias, ffn, ffn_bias)


def source_attribution(
    llm: TransparentLlm, batch_i: int, layer: int, pos: int, token: int, minus_token: int | None = None
) -> Float[torch.Tensor, "head source"]:
    """What each head of a layer brought to a position from each position, as its part of the logit of `token`, or of
    the difference from that of `minus_token`. Sums over sources to the `heads` of `logit_attribution`.

    Padded sources give 0. Raises as `logit_attribution`.
    """
    target = _Target.of(llm, batch_i, pos, token, minus_token)
    layer = layer_of(llm, layer)
    found = projections.sources_along(llm, target.row.index, layer, target.pos, target.along)
    found[:, target.row.n_tokens :] = 0
    return found


def neuron_attribution(
    llm: TransparentLlm, batch_i: int, layer: int, pos: int, token: int, minus_token: int | None = None, k: int = 0
) -> NeuronAttribution:
    """The `k` neurons of a layer that added most to the logit of `token` at a position, or took most from it, or to
    its difference from that of `minus_token`. With the rest they sum to `ffn - ffn_bias` of `logit_attribution`.

    At a padded position all values are 0.

    Raises:
        InvalidRequestError: `k` is not from 1 to the number of neurons; otherwise as `logit_attribution`.
        NotSupportedError: also where neurons cannot be told apart.
    """
    target = _Target.of(llm, batch_i, pos, token, minus_token)
    layer = layer_of(llm, layer)
    added = projections.neurons_along(llm, target.row.index, layer, target.pos, target.along)
    k = checked_count("k", k, len(added), f"neurons of layer {layer}")
    order = added.abs().sort(descending=True, stable=True).indices
    ids, others = order[:k], order[k:]
    return NeuronAttribution(ids.clone(), added[ids], added[others].sum())


class _Target(NamedTuple):
    """The position and the direction that terms are taken of."""

    row: Row
    pos: int
    direction: Direction
    along: torch.Tensor
    """The direction divided by the scale [d_model]; zeros where there is padding."""
    scale: torch.Tensor

    @classmethod
    def of(cls, llm: TransparentLlm, batch_i: int, pos: int, token: int, minus_token: int | None) -> _Target:
        row = Row.of(llm, batch_i)
        pos = row.position(pos)
        direction = Direction.of(llm, token, minus_token)
        if pos >= row.n_tokens:
            return cls(row, pos, direction, torch.zeros_like(direction.vector), torch.zeros_like(direction.norm_bias))
        frozen = frozen_scale(llm, row.index)
        if frozen is None:
            scale = direction.readout.scale(llm.residual_out(llm.model_info().n_layers - 1)[row.index, pos])
        else:
            scale = frozen[pos].to(direction.vector)
        return cls(row, pos, direction, direction.vector / scale, scale)

    @property
    def at(self) -> tuple[int, int]:
        return self.row.index, self.pos

    @property
    def is_padding(self) -> bool:
        return self.pos >= self.row.n_tokens
