"""The logit lens at one place of a model: what the residual stream there says of the next token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.places import checked_positions, residual
from transparent_llm.analysis.readout import checked_token, frozen_scale
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.scores import checked_normalize, in_blocks, scores
from transparent_llm.contract import TransparentLlm
from transparent_llm.runtime.numerics import standard_numerics

_BESIDES = 4
"""Numbers that are kept for each vector and token that is named, beside the scores of all."""

_FEW = 32
"""Tokens: for more, one sort is less work than a comparison with each."""


class LayerLens(NamedTuple):
    """What `layer_lens` answers. A padded position has NaN, and -1 for tokens and ranks."""

    top_ids: Int[torch.Tensor, "pos rank"]
    """The tokens with the largest logits, in falling order."""

    top_logits: Float[torch.Tensor, "pos rank"]
    bottom_ids: Int[torch.Tensor, "pos bottom_rank"]
    """Those with the smallest, in rising order."""

    bottom_logits: Float[torch.Tensor, "pos bottom_rank"]
    target_logits: Float[torch.Tensor, "pos token"]
    """Of the tokens that were named."""

    target_ranks: Int[torch.Tensor, "pos token"]
    """How many tokens have a larger logit than each of those."""

    logsumexp: Float[torch.Tensor, "pos"]
    """The logarithm of the sum of all exponentials: a probability is exp(logit - logsumexp)."""

    entropy: Float[torch.Tensor, "pos"]
    """Of the distribution over tokens, in nats."""

    kl: Float[torch.Tensor, "pos"] | None
    """KL(model's output || lens), in nats; None where it was not asked for."""


@standard_numerics()
def layer_lens(
    llm: TransparentLlm,
    batch_i: int,
    layer: int,
    minus_layer: int | None = None,
    point: str = "out",
    minus_point: str = "out",
    normalize: str = "own",
    positions: Sequence[int] = (),
    k: int = 0,
    bottom_k: int = 0,
    token_ids: Sequence[int] = (),
    with_kl: bool = False,
) -> LayerLens:
    """The residual stream at one place, or the difference of two places, unembedded (nostalgebraist 2020).

    Args:
        llm: Whose current run is looked at.
        batch_i: Row of the run.
        layer: Where; see `point`.
        minus_layer: Look at what was added since there: the difference is unembedded. None: no difference.
        point: "in", "after_attn" or "out" of the layer.
        minus_point: The same of `minus_layer`.
        normalize: "own": the model's last step as it is, with the vector's own norm. "frozen": the final norm with the
            scale that it had at this position of the run, without its bias and without soft cap, which is linear: what
            parts of the stream give sums to what the whole gives. "none": the plain product with the unembedding.
        positions: Of the row, negative ones from its last token. Empty: all.
        k: How many of the tokens with the largest logits.
        bottom_k: How many of those with the smallest.
        token_ids: Tokens whose logit and rank are wanted anyway.
        with_kl: Whether to compare with the model's output, which is computed for it.

    Raises:
        InvalidRequestError: a point, `normalize`, `k` or token that cannot be.
        IndexOutOfRangeError: a row, layer or position that the run does not have.
        NotSupportedError: the model has no such point, or no final norm that could be frozen.
    """
    row = Row.of(llm, batch_i)
    places = checked_positions(row, positions)
    targets = _checked_tokens(llm, k, bottom_k, token_ids)
    checked_normalize(normalize)
    vectors = residual(llm, row, point, layer)
    if minus_layer is not None:
        vectors = vectors.float() - residual(llm, row, minus_point, minus_layer).to(vectors.device).float()
    is_compared = with_kl or normalize == "frozen"
    output = residual(llm, row, "out", -1) if is_compared else None
    scale = frozen_scale(llm, row.index) if is_compared else None
    made = _nothing(len(places), k, bottom_k, len(targets), with_kl=with_kl)
    real = [i for i, place in enumerate(places) if place < row.n_tokens]
    for block in in_blocks(llm, real, _BESIDES * len(targets)):
        at = [places[i] for i in block]
        leaving = None if output is None else output[at]
        found = scores(llm, vectors[at], normalize, leaving, None if scale is None else scale[at])
        wanted = None
        if with_kl and leaving is not None:  # of a frozen norm the vector itself does not tell what it gave
            wanted = scores(llm, leaving) if scale is None else llm.logits()[row.index, at].float()
        _put(made, block, _looked_at(found, k, bottom_k, targets, wanted))
    return made


def _checked_tokens(llm: TransparentLlm, k: int, bottom_k: int, token_ids: Sequence[int]) -> list[int]:
    d_vocab = llm.model_info().d_vocab
    for name, count in (("k", k), ("bottom_k", bottom_k)):
        checked_count(name, count, d_vocab, "tokens in the vocabulary", least=0)
    return [checked_token(llm, "token", token) for token in token_ids]


def _nothing(n_pos: int, k: int, bottom_k: int, n_targets: int, *, with_kl: bool) -> LayerLens:
    """What padding has, everywhere."""

    def nan(*shape: int) -> torch.Tensor:
        return torch.full(shape, float("nan"), dtype=torch.float32, device="cpu")

    def none(*shape: int) -> torch.Tensor:
        return torch.full(shape, -1, dtype=torch.int64, device="cpu")

    return LayerLens(
        none(n_pos, k),
        nan(n_pos, k),
        none(n_pos, bottom_k),
        nan(n_pos, bottom_k),
        nan(n_pos, n_targets),
        none(n_pos, n_targets),
        nan(n_pos),
        nan(n_pos),
        nan(n_pos) if with_kl else None,
    )


def _looked_at(
    found: torch.Tensor, k: int, bottom_k: int, targets: list[int], wanted: torch.Tensor | None
) -> LayerLens:
    """Of scores [n vocab]."""
    top, bottom = found.topk(k), found.topk(bottom_k, largest=False)
    chosen = found[:, targets]
    logsumexp = found.logsumexp(dim=1)
    logprobs = found - logsumexp[:, None]
    probs = logprobs.exp()
    return LayerLens(
        top.indices,
        top.values,
        bottom.indices,
        bottom.values,
        chosen,
        _ranks(found, chosen),
        logsumexp,
        -torch.where(probs == 0, 0, probs * logprobs).sum(dim=1),
        None if wanted is None else _kl(wanted, logprobs),
    )


def _ranks(found: torch.Tensor, chosen: torch.Tensor) -> torch.Tensor:
    """How many scores of a row are larger than each of the chosen ones [n token]; NaN is not, and nothing than NaN."""
    if chosen.shape[1] <= _FEW:
        counts = [(found > each[:, None]).sum(dim=1, dtype=torch.int32) for each in chosen.T]
        return torch.stack(counts, dim=1).long() if counts else chosen.long()
    rising = found.masked_fill(found.isnan(), float("-inf")).sort(dim=1).values
    larger = found.shape[1] - torch.searchsorted(rising, chosen.contiguous(), right=True)
    return larger.masked_fill(chosen.isnan(), 0)


def _kl(wanted: torch.Tensor, logprobs: torch.Tensor) -> torch.Tensor:
    of_output = wanted.log_softmax(dim=1)
    terms = of_output.exp() * (of_output - logprobs)
    return terms.masked_fill(of_output == float("-inf"), 0.0).sum(dim=1)


def _put(made: LayerLens, rows: list[int], found: LayerLens) -> None:
    for whole, part in zip(made, found, strict=True):
        if whole is not None and part is not None:
            whole[rows] = part.to(whole.device)
