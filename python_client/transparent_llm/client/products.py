"""Values that came as factors, multiplied here: if the factors fit together, and if there is room."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from transparent_llm.client.reads import Read
from transparent_llm.client.weights import Weights
from transparent_llm.description import ModelDescription
from transparent_llm.errors import InternalError, NotSupportedError, TooLargeError
from transparent_llm.factors import AttnFactors, FfnFactors
from transparent_llm.runtime.memory import require_within
from transparent_llm.selection import Selection
from transparent_llm.wire.methods import METHODS

Named = Mapping[str, torch.Tensor]
"""What came for one read, under the names of its factors."""


class Products:
    """Of one client's reads, which know the sizes of the model and the run: no product is larger than those say."""

    def __init__(self, weights: Weights, target: str, max_bytes: int | None) -> None:
        self._weights, self._target, self._max_bytes = weights, target, max_bytes

    def attn(self, read: Read, named: Named) -> torch.Tensor:
        """`decomposed_attn`, or the part of it that its factors are of."""
        factors = AttnFactors(named["pattern"], named["value_out"], named.get("gain"))
        return self._made(read, factors.shape, factors.pattern.dtype, factors.product)

    def ffn(self, read: Read, named: Named, model: ModelDescription | None, reading: Selection) -> torch.Tensor:
        """`decomposed_ffn_out`, or the part of it that a `reading` block asks for."""
        layer = read[1][1]
        assert layer is not None
        if model is None:
            raise NotSupportedError("the server that had this run's model is gone; run it again")
        factors = self._ffn_factors(named, model.d_ffn[layer])

        def rows(start: int, stop: int) -> torch.Tensor:
            span = next((a, b) for a, b in factors.spans if a <= start < b)
            return self._weights.rows(model, layer, *span)[start - span[0] : stop - span[0]]

        axes = reading.of(METHODS[read[0]].dims or ())
        whole = (model.d_ffn[layer], model.info.d_model)
        cuts = (axes.get("hidden", slice(None)), axes.get("d_model", slice(None)))
        shape = [len(range(size)[cut]) for size, cut in zip(whole, cuts, strict=True)]
        make = partial(factors.product, model.info.d_model, rows, axes.get("hidden"), axes.get("d_model"))
        return self._made(read, shape, factors.activations.dtype, make)

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
        self, read: Read, shape: Sequence[int], dtype: torch.dtype, make: Callable[[], torch.Tensor]
    ) -> torch.Tensor:
        nbytes = math.prod(shape) * dtype.itemsize
        require_within(read[0], nbytes, self._max_bytes)
        try:
            return make()
        except MemoryError as error:
            raise TooLargeError(
                f"{read[0]} takes {nbytes} bytes, more than the memory available: {error}; read part of it",
                metadata={"needed": str(nbytes)},
            ) from None
