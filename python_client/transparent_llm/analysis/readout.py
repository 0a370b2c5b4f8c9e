"""The last step of a model as a linear map: what a vector of the residual stream says for some tokens.

Up to the divisor of the final norm, which this run fixes, a logit before any soft cap is linear in the residual stream:
`logit = residual . direction / scale + norm_bias + unembed_bias`. So each part of the stream has a term of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.runtime.indexing import integer
from transparent_llm.runtime.norms import centred, divisor


@dataclass(frozen=True)
class Readout:
    """The last step for some tokens. Tensors are float32, or float64 for a model of that dtype."""

    directions: Float[torch.Tensor, "token d_model"]
    """Rows of the unembedding times the final norm's weight and the model's own scale of logits; with their mean taken
    off where the norm takes off that of the stream, which is the same."""

    norm_bias: Float[torch.Tensor, "token"]
    """What the final norm's bias gives each token; zeros where it has none."""

    unembed_bias: Float[torch.Tensor, "token"]
    """The unembedding's own bias times the model's scale of logits; zeros where it has none."""

    eps: float
    """What the final norm adds under its root."""

    is_centred: bool
    """Whether the final norm divides by the deviation from the mean (LayerNorm), not by the size (RMSNorm)."""

    gain: Float[torch.Tensor, "d_model"]
    """What the final norm multiplies by after it has divided, times the model's own scale of logits."""

    soft_cap: float | None = None
    """Of the model's output: `soft_cap * tanh(logit / soft_cap)`, as in Gemma 2. None: it has none."""

    def scale(self, residual: Float[torch.Tensor, "*at d_model"]) -> Float[torch.Tensor, "*at"]:
        """What the final norm divides such vectors by."""
        return divisor(residual.to(self.directions), self.eps, self.is_centred)[..., 0]

    def normalized(
        self, vectors: Float[torch.Tensor, "*at d_model"], scale: Float[torch.Tensor, "*at"]
    ) -> Float[torch.Tensor, "*at d_model"]:
        """Vectors after the final norm with this scale, without its bias: linear in them. Their plain product with the
        unembedding is in units of logits."""
        return centred(vectors.to(self.directions), self.is_centred) / scale.to(self.directions)[..., None] * self.gain

    def logits(self, residual: Float[torch.Tensor, "*at d_model"]) -> Float[torch.Tensor, "*at token"]:
        """Logits before the soft cap."""
        projected = residual.to(self.directions) @ self.directions.T
        return projected / self.scale(residual)[..., None] + self.norm_bias + self.unembed_bias

    def capped(self, logits: torch.Tensor) -> torch.Tensor:
        """The model's output for logits before the soft cap: the same where it has none."""
        return logits if self.soft_cap is None else torch.tanh(logits / self.soft_cap) * self.soft_cap


@runtime_checkable
class HasReadout(Protocol):
    """An implementation that can say how its last step is made."""

    def readout(self, tokens: Sequence[int]) -> Readout:
        """Of these tokens.

        Raises:
            NotSupportedError: what was read of the model does not give its own logits.
        """


@runtime_checkable
class HasFinalScale(Protocol):
    """An implementation in whose runs the scale of the final norm can be frozen."""

    def final_scale(self, batch_i: int) -> Float[torch.Tensor, "pos"] | None:
        """What the final norm divides a row by, where that was frozen in this run."""


def frozen_scale(llm: TransparentLlm, batch_i: int) -> Float[torch.Tensor, "pos"] | None:
    """What the final norm divides a row of the current run by, where that is not the scale of the stream."""
    return llm.final_scale(batch_i) if isinstance(llm, HasFinalScale) else None


@dataclass(frozen=True)
class Direction:
    """What is attributed: the logit of a token, or how much larger it is than that of another."""

    vector: Float[torch.Tensor, "d_model"]
    norm_bias: Float[torch.Tensor, ""]
    unembed_bias: Float[torch.Tensor, ""]
    readout: Readout

    @classmethod
    def of(cls, llm: TransparentLlm, token: int, minus_token: int | None = None) -> Direction:
        """Of one token, or of the difference of two.

        Raises:
            InvalidRequestError: an id outside the model's vocabulary.
            NotSupportedError: the implementation, or the model, has no readout.
        """
        ids = [checked_token(llm, "token", token)]
        if minus_token is not None:
            ids.append(checked_token(llm, "minus_token", minus_token))
        found = readout_of(llm, ids)
        parts = (found.directions, found.norm_bias, found.unembed_bias)
        vector, norm_bias, unembed_bias = (part[0] - part[1] if len(ids) == 2 else part[0] for part in parts)
        return cls(vector, norm_bias, unembed_bias, found)


def readout_of(llm: TransparentLlm, tokens: Sequence[int]) -> Readout:
    """The readout of an implementation that has one.

    Raises:
        NotSupportedError: it has none, or the model has none.
    """
    if not isinstance(llm, HasReadout):
        raise NotSupportedError(
            f"{type(llm).__name__} does not say how logits are made of the residual stream (it has no `readout`), so "
            "they cannot be attributed to parts of it",
            metadata={"method": "readout"},
        )
    return llm.readout(tokens)


def checked_token(llm: TransparentLlm, argument: str, got: int) -> int:
    """A token id within the model's vocabulary.

    Raises:
        InvalidRequestError: it is outside, or no integer.
    """
    token, d_vocab = integer(argument, got), llm.model_info().d_vocab
    if not 0 <= token < d_vocab:
        raise InvalidRequestError(
            f"{argument} {token} is not in the vocabulary: ids are 0 to {d_vocab - 1}",
            metadata={"argument": argument, "got": str(token), "d_vocab": str(d_vocab)},
        )
    return token
