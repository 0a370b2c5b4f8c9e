"""The weights of attention heads, for queries, keys and values too, whatever the plain model has them in."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch

from transparent_llm_server.models.forward.neurons import unbridged


class UnreadableError(Exception):
    """There are no such weights; the message goes on after "it"."""


class HeadWeights(NamedTuple):
    """Of a layer: x @ q[head] is the query that the head makes of a normalised vector x of the residual stream."""

    q: torch.Tensor
    """[head d_model d_head]"""

    k: torch.Tensor
    """[kv_head d_model d_head]: each for n_heads / n_kv_heads neighbouring heads, as `v`."""

    v: torch.Tensor
    """[kv_head d_model d_head]"""

    o: torch.Tensor
    """[head d_head d_model]"""

    def kv_head(self, head: int) -> int:
        """Which of the keys and values a head reads."""
        return head * len(self.k) // len(self.q)


def head_weights(attn: Any, o: torch.Tensor) -> HeadWeights:
    """Those behind a bridge of attention, beside its output weights [head d_head d_model].

    Raises:
        UnreadableError: it has none, or they have other shapes than attention with heads has.
    """
    n_heads, d_head, d_model = o.shape
    try:
        q, k, v = _split(attn, d_head) if hasattr(attn, "split_qkv_matrix") else (attn.W_Q, attn.W_K, attn.W_V)
    except (AttributeError, AssertionError, TypeError, ValueError, RuntimeError) as error:
        raise UnreadableError("has no weights of its own for queries, keys and values") from error
    shapes = [tuple(weight.shape) for weight in (q, k, v)]
    n_kv_heads = shapes[1][0]
    wanted = [(n, d_model, d_head) for n in (n_heads, n_kv_heads, n_kv_heads)]
    if shapes != wanted or n_heads % n_kv_heads:
        raise UnreadableError(f"has weights of shapes {shapes} for queries, keys and values, not {wanted}")
    return HeadWeights(q.detach(), k.detach(), v.detach(), o)


def _split(attn: Any, d_head: int) -> tuple[torch.Tensor, ...]:
    """The parts of a fused weight. On the meta device modules are made without the random numbers that they begin with;
    where a family names another one, the caller's generators are as they were."""
    plain = unbridged(attn)
    devices = {parameter.device for parameter in plain.parameters() if parameter.is_cuda}
    with torch.random.fork_rng(devices), torch.device("meta"):
        made = attn.split_qkv_matrix(plain)
    parts = tuple(module.weight for module in made)
    if any(part.is_meta for part in parts):
        raise ValueError("a part was copied")
    return tuple(part.reshape(-1, d_head, part.shape[-1]).transpose(1, 2) for part in parts)
