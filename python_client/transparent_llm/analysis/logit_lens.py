"""The logit lens of a row: layers x positions, in one read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int

from transparent_llm.analysis.display.grid import grid_html
from transparent_llm.analysis.display.scale import Scale
from transparent_llm.analysis.labelled import Axis, Labelled, OnAxes
from transparent_llm.analysis.layer_lens import LayerLens
from transparent_llm.analysis.places import checked_positions
from transparent_llm.analysis.reading import read_all
from transparent_llm.analysis.rows import Row
from transparent_llm.analysis.showing import ShowsItself
from transparent_llm.analysis.token_names import TokenName, tokens_of
from transparent_llm.analysis.token_strings import strings_of
from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError
from transparent_llm.runtime.indexing import checked_index
from transparent_llm.table import Table

_SHOWN = 8
"""Positions in a terminal."""


@dataclass(frozen=True, repr=False)
class LogitLens(ShowsItself):
    """What `logit_lens` answers; the last place is the model's output, where all layers were asked for."""

    batch_i: int
    """Row of the run."""

    places: tuple[tuple[str, int], ...]
    """A point and a layer for each row of the grid, from the bottom up: ("in", 0), ("out", 0) and so on."""

    positions: tuple[int, ...]
    """Of the row."""

    tokens: tuple[str, ...]
    """The text at each of these positions."""

    ids: Int[torch.Tensor, "place pos rank"]
    """The most likely tokens, in falling order."""

    strings: tuple[tuple[tuple[str, ...], ...], ...]
    """The text of each of them: place, position, rank."""

    logits: Float[torch.Tensor, "place pos rank"]
    probs: Float[torch.Tensor, "place pos rank"]
    entropy: Float[torch.Tensor, "place pos"]
    """Of the distribution over tokens, in nats."""

    kl: Float[torch.Tensor, "place pos"] | None
    """KL(model's output || lens), in nats; None where it was not asked for."""

    token_ids: tuple[int, ...]
    """The tokens that were named."""

    token_logprobs: Float[torch.Tensor, "place pos token"]
    """Their log-probabilities, in nats."""

    token_ranks: Int[torch.Tensor, "place pos token"]
    """How many tokens are more likely than each of them."""

    token_strings: tuple[str, ...]
    """The text of each of those."""

    def labelled(self) -> Labelled:
        """All tensors; axis "place" has names such as "in 0" and "out 3"."""
        return _grid(self)

    def table(self) -> Table:
        """A row for each place, the last at the top, and the most likely token at each of the last few positions."""
        at = range(len(self.positions))[-_SHOWN:]
        columns = [f"{self.positions[i]} {self.tokens[i]!r}" for i in at]
        lines = [
            (_name(place), *(f"{row[i][0]!r} {best[i]:.2f}" if row[i] else "" for i in at))
            for place, row, best in zip(self.places, self.strings, self._best.tolist(), strict=True)
        ]
        of = f", the last {_SHOWN} of {len(self.positions)} positions" if len(at) < len(self.positions) else ""
        return Table.of(f"logit lens, row {self.batch_i}{of}", ("place", *columns), reversed(lines))

    @property
    def _best(self) -> torch.Tensor:
        """Probability of the most likely token [place pos]; NaN where none was asked for."""
        return self.probs[..., 0] if self.probs.shape[-1] else torch.full(self.entropy.shape, math.nan, device="cpu")


@dataclass(frozen=True, repr=False, eq=False)
class _LensGrid(Labelled):
    lens: LogitLens

    def picture(self) -> str:
        """Places from the bottom up; a cell has the most likely token on the colour of its probability."""
        lens = self.lens
        cells = [[tops[0] if tops else "" for tops in row] for row in lens.strings]
        probs = lens.probs.tolist()
        notes = [
            ["\n".join(f"{s!r} {p:.4f}" for s, p in zip(tops, ps, strict=True)) for tops, ps in zip(a, b, strict=True)]
            for a, b in zip(lens.strings, probs, strict=True)
        ]
        return grid_html(
            lens._best,
            title=self.title,
            rows=[_name(place) for place in lens.places],
            columns=list(lens.tokens),
            cells=cells,
            notes=notes,
            row_axis="place",
            value_name="probability",
            upwards=True,
            scale=Scale(0.0, 1.0),
        )


def _grid(lens: LogitLens) -> _LensGrid:
    named = Axis("token", list(lens.token_ids), {"token_text": lens.token_strings})
    axes = (
        Axis("place", [_name(place) for place in lens.places]),
        Axis("pos", list(lens.positions), {"text": lens.tokens}),
        Axis("rank", range(lens.ids.shape[-1])),
        named,
    )
    by_rank, at, by_token = ("place", "pos", "rank"), ("place", "pos"), ("place", "pos", "token")
    tensors = {
        "probs": OnAxes(lens.probs, by_rank),
        "logits": OnAxes(lens.logits, by_rank),
        "ids": OnAxes(lens.ids, by_rank),
        "entropy": OnAxes(lens.entropy, at),
        **({} if lens.kl is None else {"kl": OnAxes(lens.kl, at)}),
    }
    if lens.token_ids:
        tensors |= {n: OnAxes(getattr(lens, n), by_token) for n in ("token_logprobs", "token_ranks")}
    return _LensGrid(f"logit lens, row {lens.batch_i}", axes, tensors, lens)


def _name(place: tuple[str, int]) -> str:
    point, layer = place
    return f"{point.replace('_', ' ')} {layer}"


def logit_lens(
    llm: TransparentLlm,
    batch_i: int = 0,
    *,
    layers: Sequence[int] | None = None,
    positions: Sequence[int] | str | None = None,
    k: int = 5,
    token_ids: Sequence[TokenName] = (),
    mid: bool = False,
    normalize: str = "own",
    with_kl: bool = True,
) -> LogitLens:
    """The residual stream of a row, unembedded at layers x positions (nostalgebraist 2020).

    Args:
        llm: Whose current run is looked at.
        batch_i: Row of the run.
        layers: Which, negative ones from the end. None: all, and the embedding below them.
        positions: Of the row, negative ones from its last token; or "last". None: all that are no padding.
        k: How many of the most likely tokens.
        token_ids: Tokens whose log-probability and rank are wanted anyway: ids, or texts that are one token each.
        mid: Also after each layer's attention.
        normalize: "own", "frozen" or "none": see `layer_lens`.
        with_kl: Whether to compare with the model's output, which takes as long again.

    Raises:
        InvalidRequestError: no layer, or an argument that cannot be.
        IndexOutOfRangeError: a row, layer or position that the run does not have.
        NotSupportedError: the model has no such point.
    """
    row = Row.of(llm, batch_i)
    at = _positions(row, positions)
    places = _places(llm, layers, mid=mid)
    ids = tokens_of(llm, "token", token_ids)
    reads = [
        ("layer_lens", row.index, layer, None, point, "out", normalize, at, k, 0, ids, with_kl)
        for point, layer in places
    ]
    found = _stacked(read_all(llm, reads))
    tokens = llm.tokens()[row.index, list(at)].tolist()
    text = strings_of(llm, [*found.top_ids.flatten().tolist(), *tokens, *ids])
    return LogitLens(
        batch_i=row.index,
        places=places,
        positions=at,
        tokens=tuple(text[token] for token in tokens),
        ids=found.top_ids,
        strings=tuple(tuple(tuple(text[t] for t in top) for top in rows) for rows in found.top_ids.tolist()),
        logits=found.top_logits,
        probs=(found.top_logits - found.logsumexp[..., None]).exp(),
        entropy=found.entropy,
        kl=found.kl,
        token_ids=ids,
        token_logprobs=found.target_logits - found.logsumexp[..., None],
        token_ranks=found.target_ranks,
        token_strings=tuple(text[token] for token in ids),
    )


def _positions(row: Row, positions: Sequence[int] | str | None) -> tuple[int, ...]:
    if positions is None:
        return tuple(range(row.n_tokens))
    if isinstance(positions, str):
        if positions != "last":
            raise InvalidRequestError(f'positions must be "last" or a list of integers, got {positions[:100]!r}')
        positions = (-1,)
    if not len(positions):
        raise InvalidRequestError("positions are empty; leave them out for all")
    return tuple(checked_positions(row, positions))


def _places(llm: TransparentLlm, layers: Sequence[int] | None, *, mid: bool) -> tuple[tuple[str, int], ...]:
    n_layers = llm.model_info().n_layers
    wanted = range(n_layers) if layers is None else [checked_index("layer", layer, n_layers) for layer in layers]
    if not wanted:
        raise InvalidRequestError("layers are empty; leave them out for all")
    places = [("in", 0)] if layers is None else []
    for layer in wanted:
        places += [("after_attn", layer)] if mid else []
        places.append(("out", layer))
    return tuple(places)


def _stacked(lenses: Sequence[LayerLens]) -> LayerLens:
    """All of them as one, with an axis more in front."""
    parts = zip(*lenses, strict=True)
    return LayerLens._make(None if part[0] is None else torch.stack(part).cpu() for part in parts)
