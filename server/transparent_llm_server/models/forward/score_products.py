"""Queries and keys on their way: what attention multiplies with each other, after rotary embeddings, norms and factors.

They pass no module. But all that attention multiplies of what it computed are two products, that of queries with keys
and that of the pattern with values; calls of torch are seen in the thread that makes them, within a pass. If a layer
does anything else, this is found out by its pattern, and said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from transparent_llm.errors import NotSupportedError
from transparent_llm_server.models.forward.layer import Layer
from transparent_llm_server.models.forward.taps import Rewrite, Site

FIELDS = ("query", "key")
"""Of sites whose rewrites are made here: of queries [batch head pos d], and keys [batch kv_head pos d]."""

_PRODUCTS: Collection[Callable[..., Any]] = (
    *(torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__),
    *(torch.bmm, torch.Tensor.bmm, torch.baddbmm, torch.Tensor.baddbmm),
)
_Kept = dict[Any, torch.Tensor]


class ScoreProducts(TorchFunctionMode):
    """Of one forward pass. Within it, the products of the layers that have rewrites are looked at."""

    def __init__(self, rewrites: Mapping[Site, Rewrite], layers: Sequence[Layer]) -> None:
        super().__init__()
        self._own = {site: rewrite for site, rewrite in rewrites.items() if site.field in FIELDS}
        self._others = {site: rewrite for site, rewrite in rewrites.items() if site.field not in FIELDS}
        self._layers = layers
        self._layer: int | None = None
        self._kept: _Kept = {}
        self._left: list[torch.Tensor] = []

    @property
    def rewrites(self) -> dict[Site, Rewrite]:
        """Of the taps: those that were given, and where attention of a layer begins and ends."""
        found = dict(self._others)
        for layer in {site.layer for site in self._own}:
            found[Site(layer, "residual_in")] = self._begins(layer, found.get(Site(layer, "residual_in")))
            found[Site(layer, "pattern")] = self._ends(layer, found.get(Site(layer, "pattern")))
        return found

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Every call of torch; `types` is of the protocol."""
        kwargs = kwargs or {}
        if self._layer is None or func not in _PRODUCTS:
            return func(*args, **kwargs)
        return self._product(self._layer, func, args, kwargs)

    def _product(self, layer: int, func: Any, args: Any, kwargs: Any) -> Any:
        adds = func in (torch.baddbmm, torch.Tensor.baddbmm)
        operands = [*args[1 if adds else 0 :], *(kwargs.pop(n) for n in ("batch1", "batch2", "mat2") if n in kwargs)]
        left, right = operands[:2]
        n_heads = self._layers[layer].heads.n_heads
        if left.ndim == right.ndim and left.ndim >= 3 and math.prod(left.shape[:-2]) % n_heads == 0:
            self._left.append(left)
            if len(self._left) == 1:
                left, right = self._rewritten(layer, left, right)
        return func(*(args[:1] if adds else ()), left, right, **kwargs)

    def _rewritten(self, layer: int, left: torch.Tensor, right: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Queries [... pos d] and turned keys [... d pos], as they are to be multiplied."""
        n_heads, n_kv = self._layers[layer].heads.n_heads, self._layers[layer].n_kv_heads
        query, key = (_by_head(each, n_heads) for each in (left, right.transpose(-1, -2)))
        if (rewrite := self._own.get(Site(layer, "query"))) is not None:
            query = rewrite(query, self._kept)
        if (rewrite := self._own.get(Site(layer, "key"))) is not None:
            n_shared = key.shape[1] // n_kv
            of_kv = key[:, ::n_shared]
            if key.shape[1] % n_kv or not torch.equal(of_kv.repeat_interleave(n_shared, 1), key):
                raise _unreachable(layer, "query heads share keys in a way of their own")
            made = rewrite(of_kv, self._kept)
            key = key if made is of_kv else made.repeat_interleave(n_shared, 1)
        return query.reshape(left.shape), key.transpose(-1, -2).reshape(right.shape)

    def _begins(self, layer: int, rewrite: Rewrite | None) -> Rewrite:
        def begin(tensor: torch.Tensor, kept: _Kept) -> torch.Tensor:
            passed = tensor if rewrite is None else rewrite(tensor, kept)
            self._layer, self._kept, self._left = layer, kept, []
            return passed

        return begin

    def _ends(self, layer: int, rewrite: Rewrite | None) -> Rewrite:
        def end(pattern: torch.Tensor, kept: _Kept) -> torch.Tensor:
            self._layer = None
            if len(self._left) != 2:
                raise _unreachable(layer, f"its attention has {len(self._left)} products where there should be two")
            mixing = self._left[1]
            if mixing.numel() != pattern.numel() or not torch.equal(mixing.reshape(pattern.shape), pattern.to(mixing)):
                raise _unreachable(layer, "its attention multiplies values with something else than its pattern")
            return pattern if rewrite is None else rewrite(pattern, kept)

        return end


def _by_head(tensor: torch.Tensor, n_heads: int) -> torch.Tensor:
    """[batch head pos d] of that, or of [batch * head pos d]."""
    return tensor if tensor.ndim == 4 else tensor.reshape(-1, n_heads, *tensor.shape[-2:])


def _unreachable(layer: int, why: str) -> NotSupportedError:
    return NotSupportedError(f"queries and keys of layer {layer} cannot be edited: {why}")
