"""What two runs of one model say of the next token, at the last token of each row, or at each of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import RowComparison
from transparent_llm.runtime.indexing import checked_index
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled

_ROWS = 16
"""Whose scores are computed at once. Never a setting, as it decides the last bits."""

Strings = Callable[[Sequence[int]], list[str]]


def work_of_comparing(n_rows: int, d_model: int, d_vocab: int) -> int:
    """Multiply-adds of comparing so many rows, or positions of them."""
    return 2 * n_rows * d_model * d_vocab


def compared(
    model: BridgedModel, values: RunValues, other: RunValues, strings: Strings, from_pos: int | None = None
) -> tuple[RowComparison, ...]:
    """One run beside another, row by row; at all positions from `from_pos` on too, where it is given.

    Raises:
        InvalidRequestError: they are of two models, or have other numbers of rows; or, with `from_pos`, other tokens.
        IndexOutOfRangeError: a row has no position `from_pos`.
        NotFoundError: MODEL_CHANGED, as somebody has edited the model's weights since.
    """
    if not (values.is_of(model) and other.is_of(model)):
        raise InvalidRequestError("runs of two models are not compared: their tokens and scores differ")
    n_rows = values.batch_size()
    if n_rows != other.batch_size():
        raise InvalidRequestError(
            f"a run of {n_rows} rows and one of {other.batch_size()}: compare runs of as many rows"
        )
    by_pos = [()] * n_rows if from_pos is None else _by_pos(model, values, other, from_pos)
    found: list[tuple[float, int, int]] = []
    for start in range(0, n_rows, _ROWS):
        raise_if_cancelled()
        rows = range(start, min(start + _ROWS, n_rows))
        scores = (_scores(model, each, [each.place(row, -1) for row in rows]) for each in (values, other))
        found += map(_compared, *scores)
    for each in (values, other):
        each.require_same_model("logits")
    words = strings([token for _, *tokens in found for token in tokens])
    texts = zip(words[::2], words[1::2], strict=True)
    return tuple(
        RowComparison(kl, top, text, other_top, other_text, kls)
        for (kl, top, other_top), (text, other_text), kls in zip(found, texts, by_pos, strict=True)
    )


def divergence(logp: torch.Tensor, logq: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats of log-probabilities [... d_vocab], summed in their type."""
    return torch.where(logp == -torch.inf, 0.0, logp.exp() * (logp - logq)).sum(
        dim=-1
    )  # what cannot come counts nothing


def _by_pos(model: BridgedModel, values: RunValues, other: RunValues, from_pos: int) -> list[tuple[float, ...]]:
    """The divergence at the positions of each row from one on."""
    lengths = values.capture.mask.sum(dim=1).tolist()
    if not torch.equal(*(each.capture.tokens.masked_fill(~each.capture.mask, -1) for each in (values, other))):
        raise InvalidRequestError("runs of other tokens: position by position, compare runs of the same tokens")
    start = checked_index("from_pos", from_pos, min(lengths))
    places = [(row, pos) for row, length in enumerate(lengths) for pos in range(start, length)]
    kls: list[float] = []
    for first in range(0, len(places), _ROWS):
        raise_if_cancelled()
        scores = (_scores(model, each, places[first : first + _ROWS]) for each in (values, other))
        kls += divergence(*(each.double().log_softmax(dim=-1) for each in scores)).clamp(min=0.0).tolist()
    coming = iter(kls)
    return [tuple(islice(coming, length - start)) for length in lengths]


def _scores(model: BridgedModel, values: RunValues, places: Sequence[tuple[int, int]]) -> torch.Tensor:
    """The logits after some positions of rows [n d_vocab]."""
    vectors, scale = values.capture.output_at([row for row, _ in places], [pos for _, pos in places])
    return model.unembed(vectors, normalize=True, tokens=range(model.d_vocab), scale=scale)


def _compared(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int, int]:
    """Of two rows of logits [d_vocab]: KL(one || other) in nats, and the most likely token of each."""
    kl = divergence(one.double().log_softmax(dim=0), other.double().log_softmax(dim=0))
    return float(kl.clamp(min=0.0)), int(one.argmax()), int(other.argmax())
