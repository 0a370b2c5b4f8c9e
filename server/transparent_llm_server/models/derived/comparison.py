"""What two runs of one model say of the next token, at the last token of each row."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions import RowComparison
from transparent_llm_server.models.derived.run import RunValues
from transparent_llm_server.models.forward.bridge import BridgedModel
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled

_ROWS = 16
"""Whose scores are computed at once. Never a setting, as it decides the last bits."""

Strings = Callable[[Sequence[int]], list[str]]


def work_of_comparing(n_rows: int, d_model: int, d_vocab: int) -> int:
    """Multiply-adds of comparing so many rows."""
    return 2 * n_rows * d_model * d_vocab


def compared(model: BridgedModel, values: RunValues, other: RunValues, strings: Strings) -> tuple[RowComparison, ...]:
    """One run beside another, row by row.

    Raises:
        InvalidRequestError: they are of two models, or have other numbers of rows.
        NotFoundError: MODEL_CHANGED, as somebody has edited the model's weights since.
    """
    if not (values.is_of(model) and other.is_of(model)):
        raise InvalidRequestError("runs of two models are not compared: their tokens and scores differ")
    n_rows = values.batch_size()
    if n_rows != other.batch_size():
        raise InvalidRequestError(
            f"a run of {n_rows} rows and one of {other.batch_size()}: compare runs of as many rows"
        )
    found: list[tuple[float, int, int]] = []
    for start in range(0, n_rows, _ROWS):
        raise_if_cancelled()
        rows = range(start, min(start + _ROWS, n_rows))
        found += map(_compared, _scores(model, values, rows), _scores(model, other, rows))
    for each in (values, other):
        each.require_same_model("logits")
    words = strings([token for _, *tokens in found for token in tokens])
    texts = zip(words[::2], words[1::2], strict=True)
    return tuple(
        RowComparison(kl, top, text, other_top, other_text)
        for (kl, top, other_top), (text, other_text) in zip(found, texts, strict=True)
    )


def divergence(logp: torch.Tensor, logq: torch.Tensor) -> torch.Tensor:
    """KL(p || q) in nats of log-probabilities [... d_vocab], summed in their type."""
    return torch.where(logp == -torch.inf, 0.0, logp.exp() * (logp - logq)).sum(
        dim=-1
    )  # what cannot come counts nothing


def _scores(model: BridgedModel, values: RunValues, rows: Sequence[int]) -> torch.Tensor:
    """The logits after the last token of some rows [n d_vocab]."""
    vectors, scale = values.capture.output_at(rows, [values.place(row, -1)[1] for row in rows])
    return model.unembed(vectors, normalize=True, tokens=range(model.d_vocab), scale=scale)


def _compared(one: torch.Tensor, other: torch.Tensor) -> tuple[float, int, int]:
    """Of two rows of logits [d_vocab]: KL(one || other) in nats, and the most likely token of each."""
    kl = divergence(one.double().log_softmax(dim=0), other.double().log_softmax(dim=0))
    return float(kl.clamp(min=0.0)), int(one.argmax()), int(other.argmax())
