"""Values that came as factors, multiplied here: if the factors fit together, and if there is room."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from transparent_llm.client.ask import Ask
from transparent_llm.client.weights import Weights
from transparent_llm.errors import InternalError, TooLargeError
from transparent_llm.factors import AttnFactors, FfnFactors
from transparent_llm.runtime.memory import require_within

Named = Mapping[str, torch.Tensor]
"""What came for one read, under the names of its factors."""


class Products:
    """Of one client's reads, which know the sizes of the model and the run: no product is larger than those say."""

    def __init__(self, weights: Weights, target: str, max_bytes: int | None) -> None:
        self._weights, self._target, self._max_bytes = weights, target, max_bytes

    def attn(self, ask: Ask, named: Named) -> torch.Tensor:
        """`decomposed_attn`, or the part of it that its factors are of."""
        factors = AttnFactors(named["pattern"], named["value_out"], named.get("gain"))
        return self._made(ask.name, factors.shape, factors.pattern.dtype, factors.product)

    def ffn(self, ask: Ask, named: Named) -> torch.Tensor:
        """`decomposed_ffn_out`, or the part of it that a `reading` block asks for."""
        model, layer = ask.run.model, ask.layer
        assert layer is not None  # factors are asked for of layers that the model has
        factors = self._ffn_factors(named, model.d_ffn[layer])

        def rows(start: int, stop: int) -> torch.Tensor:
            span = next((a, b) for a, b in factors.spans if a <= start < b)
            return self._weights.rows(model, layer, *span)[start - span[0] : stop - span[0]]

        whole = (model.d_ffn[layer], model.info.d_model)
        cuts = (ask.axes.get("hidden", slice(None)), ask.axes.get("d_model", slice(None)))
        shape = [len(range(size)[cut]) for size, cut in zip(whole, cuts, strict=True)]
        make = partial(factors.product, model.info.d_model, rows, ask.axes.get("hidden"), ask.axes.get("d_model"))
        return self._made(ask.name, shape, factors.activations.dtype, make)

    def _ffn_factors(self, named: Named, count: int) -> FfnFactors:
        """As they came, if they are those of so many neurons."""
        spans = [(start, stop) for start, stop in named["spans"].tolist()] if "spans" in named else [(0, count)]
        factors = FfnFactors(named["activations"], count, tuple(spans), named.get("gain"))
        if not factors.are_whole:
            raise InternalError(
                f"{self._target} broke the protocol: {factors.activations.shape[0]} activations of {count} neurons, in "
                f"{len(spans)} spans that do not match them"
            )
        return factors

    def _made(
        self, name: str, shape: Sequence[int], dtype: torch.dtype, make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        nbytes = math.prod(shape) * dtype.itemsize
        require_within(name, nbytes, self._max_bytes)
        try:
            return make()
        except MemoryError as error:
            raise TooLargeError(
                f"{name} takes {nbytes} bytes, more than the memory available: {error}; read part of it",
                metadata={"needed": str(nbytes)},
            ) from None
