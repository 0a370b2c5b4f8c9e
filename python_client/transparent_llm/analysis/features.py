"""What a sparse autoencoder finds in a row of a run: features, and how much of what it read they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.counts import checked_count
from transparent_llm.analysis.interrupt import check
from transparent_llm.analysis.places import checked_positions
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.runtime.numerics import standard_numerics, wide

_BLOCK = 2**23
"""Activations that are in memory at a time."""

_MOST_NUMBERS = 2**27
"""Of one answer."""


class SaeOfRow(Protocol):
    """A sparse autoencoder, and what it reads and writes in a row of a run."""

    n_features: int
    inputs: Float[torch.Tensor, "pos d_in"]
    outputs: Float[torch.Tensor, "pos d_out"]
    """The same as `inputs`, but for a transcoder."""

    def encode(self, x: Float[torch.Tensor, "n d_in"]) -> Float[torch.Tensor, "n d_sae"]:
        """Activations of all features, 0 where they are not active."""

    def decode(
        self, activations: Float[torch.Tensor, "n d_sae"], x: Float[torch.Tensor, "n d_in"]
    ) -> Float[torch.Tensor, "n d_out"]:
        """What they stand for, of activations that `x` gave."""


@runtime_checkable
class HasSaes(Protocol):
    """An implementation that computes sparse autoencoders by itself."""

    def sae_of_row(self, name: str, row: int) -> SaeOfRow:
        """The one of this name, on a row of the current run."""


class Features(NamedTuple):
    """What `features` answers. A padded position has NaN, and -1 for features and counts."""

    ids: Int[torch.Tensor, "pos rank"]
    """The most active features, in falling order; -1 where fewer are active."""

    activations: Float[torch.Tensor, "pos rank"]
    """Theirs; 0 where fewer are active."""

    active: Int[torch.Tensor, "pos"]
    """How many features are active: over 0."""

    error_norm: Float[torch.Tensor, "pos"]
    """Length of what the features do not account for: the value of the site less its reconstruction."""

    explained: Float[torch.Tensor, "pos"]
    """Share of variance explained: 1 - error^2 / (squared distance of the value from the mean over the row's tokens);
    NaN where that distance is 0."""


@standard_numerics()
def features(llm: TransparentLlm, batch_i: int, sae: str = "", positions: Sequence[int] = (), k: int = 0) -> Features:
    """The most active features of a sparse autoencoder at positions of a row, computed of the run's value of its site.

    Args:
        llm: Whose current run is looked at.
        batch_i: Row of the run.
        sae: Its name. Empty: the only one that the model has.
        positions: Of the row, negative ones from its last token. Empty: all.
        k: How many features of each position.

    Raises:
        InvalidRequestError: there is no such sparse autoencoder, or it has fewer features than `k`.
        IndexOutOfRangeError: a row or position that the run does not have.
        NotSupportedError: the model has no sparse autoencoder, or `llm` computes none.
    """
    row = Row.of(llm, batch_i)
    places = checked_positions(row, positions)
    found = _sae(llm, sae, row)
    checked_count("k", k, found.n_features, "features", least=0)
    _require_few(len(places), k)
    made = Features(
        torch.full((len(places), k), -1, dtype=torch.int64, device="cpu"),
        _nan(len(places), k),
        torch.full((len(places),), -1, dtype=torch.int64, device="cpu"),
        _nan(len(places)),
        _nan(len(places)),
    )
    outputs = wide(found.outputs[: row.n_tokens])
    mean = outputs.mean(dim=0)
    for block, at in _blocks(found, places, row.n_tokens):
        inputs = found.inputs[at]
        activations = found.encode(inputs)
        top = activations.topk(k, dim=1)
        is_active = top.values > 0
        wanted = outputs[at]
        error = (wanted - found.decode(activations, inputs).to(wanted)).norm(dim=1)
        made.ids[block] = torch.where(is_active, top.indices, -1).cpu()
        made.activations[block] = torch.where(is_active, top.values, 0).float().cpu()
        made.active[block] = (activations > 0).sum(dim=1).cpu()
        made.error_norm[block] = error.float().cpu()
        made.explained[block] = _explained(error, (wanted - mean).norm(dim=1)).float().cpu()
    return made


@standard_numerics()
def feature_activations(
    llm: TransparentLlm, batch_i: int, sae: str = "", feature_ids: Sequence[int] = (), positions: Sequence[int] = ()
) -> Float[torch.Tensor, "pos feature"]:
    """Activations of chosen features of a sparse autoencoder at positions of a row; NaN at padded positions.

    Args:
        llm: Whose current run is looked at.
        batch_i: Row of the run.
        sae: Its name. Empty: the only one that the model has.
        feature_ids: The features; negative ones count from the end.
        positions: Of the row, negative ones from its last token. Empty: all.

    Raises:
        InvalidRequestError: there is no such sparse autoencoder.
        IndexOutOfRangeError: a row or position that the run does not have, or a feature that it does not have.
        NotSupportedError: the model has no sparse autoencoder, or `llm` computes none.
    """
    row = Row.of(llm, batch_i)
    places = checked_positions(row, positions)
    found = _sae(llm, sae, row)
    chosen = [checked_index("feature", feature, found.n_features) for feature in feature_ids]
    _require_few(len(places), len(chosen))
    made = _nan(len(places), len(chosen))
    for block, at in _blocks(found, places, row.n_tokens):
        made[block] = found.encode(found.inputs[at])[:, chosen].float().cpu()
    return made


def _sae(llm: TransparentLlm, name: str, row: Row) -> SaeOfRow:
    if not isinstance(llm, HasSaes):
        raise NotSupportedError(
            f"{type(llm).__name__} computes no sparse autoencoders: a server that was started with --sae does"
        )
    return llm.sae_of_row(name, row.index)


def _blocks(found: SaeOfRow, places: list[int], n_tokens: int) -> Iterator[tuple[list[int], list[int]]]:
    """Places in the answer and positions of the row, of as many tokens as memory should hold."""
    real = [i for i, place in enumerate(places) if place < n_tokens]
    step = max(1, _BLOCK // found.n_features)
    for start in range(0, len(real), step):
        check()
        block = real[start : start + step]
        yield block, [places[i] for i in block]


def _require_few(n_pos: int, n: int) -> None:
    if n_pos * n > _MOST_NUMBERS:
        raise InvalidRequestError(
            f"{n} features of {n_pos} positions are more than {_MOST_NUMBERS} numbers: ask for fewer at a time",
            reason="TOO_LARGE",
            metadata={"needed": str(n_pos * n), "allowed": str(_MOST_NUMBERS)},
        )


def _nan(*shape: int) -> torch.Tensor:
    return torch.full(shape, float("nan"), dtype=torch.float32, device="cpu")


def _explained(error: torch.Tensor, spread: torch.Tensor) -> torch.Tensor:
    return torch.where(spread == 0, torch.nan, 1 - (error / spread) ** 2)
