"""Vectors that an edit takes from somewhere: sent as they are, or found where the model is, which needs no upload."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.site import Site
from transparent_llm.quoting import kind_of
from transparent_llm.runtime.indexing import integer


class Vector:
    """As wide as the site that it is used at. `a - b` is a vector too."""

    def __sub__(self, other: object) -> Difference:
        if not isinstance(other, Vector):
            raise InvalidRequestError(f"a vector less {kind_of(other)} is none; make a vector of it with literal(...)")
        return Difference(self, other)


@dataclass(frozen=True, eq=False)
class Literal(Vector):
    """Numbers: [d], or a row for each position that is selected [n d]."""

    values: torch.Tensor


@dataclass(frozen=True)
class ValueOf(Vector):
    """What another run had at a site, at one position of one row."""

    site: Site
    source: TransparentLlm
    row: int
    pos: int


@dataclass(frozen=True)
class Difference(Vector):
    """One vector less another."""

    minuend: Vector
    subtrahend: Vector


@dataclass(frozen=True)
class Unembedding(Vector):
    """The column of the unembedding for a token [d_model]."""

    token: int


@dataclass(frozen=True)
class NeuronOutput(Vector):
    """The output vector of a neuron [d_model]."""

    layer: int
    neuron: int


@dataclass(frozen=True)
class SaeFeature(Vector):
    """A direction of a sparse autoencoder's feature: the row of its decoder, or the column of its encoder."""

    sae: str
    feature: int
    direction: str


DIRECTIONS = ("decoder", "encoder")
"""Of a feature: what it writes, and what it reads."""


def literal(values: torch.Tensor | Iterable[float]) -> Vector:
    """These numbers.

    Raises:
        InvalidRequestError: they are no vector, nor a matrix with one for each position; or not finite.
    """
    tensor = values if isinstance(values, torch.Tensor) else torch.tensor(list(values), dtype=torch.float32)
    if tensor.ndim not in (1, 2) or not tensor.numel() or not tensor.is_floating_point():
        raise InvalidRequestError(
            f"a vector is floating numbers [d], or [n d] with a row for each position, got {tensor.dtype} of shape "
            f"{list(tensor.shape)}"
        )
    if not bool(tensor.isfinite().all()):
        raise InvalidRequestError("a vector has elements that are not finite")
    return Literal(tensor.detach().cpu().clone())


def value_of(site: Site, source: TransparentLlm, *, row: int = 0, pos: int) -> Vector:
    """What the current run of `source` had at a site, at one position: a steering vector from another sentence."""
    return ValueOf(site, source, integer("row", row), integer("pos", pos))


def unembedding(token: int, minus: int | None = None) -> Vector:
    """The direction that a token's logit reads [d_model]; with `minus`, less that of another token."""
    column = Unembedding(integer("token", token))
    return column if minus is None else column - Unembedding(integer("minus", minus))


def neuron_output(layer: int, neuron: int) -> Vector:
    """What a neuron writes [d_model]."""
    return NeuronOutput(integer("layer", layer), integer("neuron", neuron))


def sae_feature(sae: str, feature: int, direction: str = "decoder") -> Vector:
    """What a feature of a sparse autoencoder of the model writes, as wide as its site (of a transcoder, its output's).

    Args:
        sae: Its name on the server; see `llm.saes()`.
        feature: Its index.
        direction: "decoder": its row of the decoder. "encoder": its column of the encoder, which it reads. Of one that
            normalizes what it reads, both are of the normalized values.

    Raises:
        InvalidRequestError: no name, or no such direction.
    """
    if not isinstance(sae, str) or not sae:
        raise InvalidRequestError(f"sae must be the name of a sparse autoencoder, got {kind_of(sae)}")
    if direction not in DIRECTIONS:
        raise InvalidRequestError(
            f"direction must be one of {', '.join(map(repr, DIRECTIONS))}, got {kind_of(direction)}"
        )
    return SaeFeature(sae, integer("feature", feature), direction)


def vector_of(given: Vector | torch.Tensor | Iterable[float]) -> Vector:
    """A vector, or numbers that are one."""
    return given if isinstance(given, Vector) else literal(given)
