"""The best and the worst of a vector's scores: all of them that anybody reads."""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int


class VectorTokens(NamedTuple):
    """What `vector_tokens` answers, on the CPU."""

    top_ids: Int[torch.Tensor, "rank"]
    """The tokens with the largest logits, in falling order."""

    top_logits: Float[torch.Tensor, "rank"]
    bottom_ids: Int[torch.Tensor, "bottom_rank"]
    """Those with the smallest, in rising order."""

    bottom_logits: Float[torch.Tensor, "bottom_rank"]
    logsumexp: Float[torch.Tensor, ""]
    """The logarithm of the sum of all exponentials."""


@runtime_checkable
class FindsVectorTokens(Protocol):
    """An implementation whose server may find them, next to the weights."""

    def vector_tokens(
        self, vector: Float[torch.Tensor, "d_model"], *, normalize: bool, k: int, bottom_k: int
    ) -> VectorTokens | None:
        """As `vector_tokens` of all scores; None: the server does not, or not so many."""


def vector_tokens(scores: Float[torch.Tensor, "vocab"], k: int, bottom_k: int) -> VectorTokens:
    """So many of the largest and of the smallest, in float32."""
    found = scores.float().cpu()
    top, bottom = found.topk(k), found.topk(bottom_k, largest=False)
    return VectorTokens(top.indices, top.values, bottom.indices, bottom.values, found.logsumexp(dim=0))
