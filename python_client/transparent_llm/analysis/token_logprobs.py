"""How likely each token of a text was to the model."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.places import residual
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.scores import in_blocks, scores
from transparent_llm.contract import TransparentLlm
from transparent_llm.runtime.numerics import standard_numerics


class TokenLogprobs(NamedTuple):
    """What `token_logprobs` answers, at each position of the token that follows it."""

    logprobs: Float[torch.Tensor, "pos"]
    """Its log-probability, in nats; NaN where no token follows."""

    ranks: Int[torch.Tensor, "pos"]
    """How many tokens were more likely; -1 where no token follows."""


@standard_numerics()
def token_logprobs(llm: TransparentLlm, batch_i: int) -> TokenLogprobs:
    """The log-probability and the rank that the model gave to each token of a row, at the position before it.

    The mean of the log-probabilities that are no NaN is minus the cross-entropy of the row.

    Raises:
        IndexOutOfRangeError: the run has no such row.
    """
    row = Row.of(llm, batch_i)
    tokens = llm.tokens()[row.index].cpu()
    logprobs = torch.full(tokens.shape, float("nan"), dtype=torch.float32, device="cpu")
    ranks = torch.full(tokens.shape, -1, dtype=torch.int64, device="cpu")
    output = residual(llm, row, "out", -1)
    for block in in_blocks(llm, range(row.n_tokens - 1)):
        found = scores(llm, output[block])
        following = tokens[[pos + 1 for pos in block]].to(found.device)[:, None]
        chosen = found.gather(1, following)
        logprobs[block] = (chosen[:, 0] - found.logsumexp(dim=1)).cpu()
        ranks[block] = (found > chosen).sum(dim=1).cpu()
    return TokenLogprobs(logprobs, ranks)
