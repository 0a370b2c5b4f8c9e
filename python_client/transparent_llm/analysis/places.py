"""Where an analysis looks: positions of a row, points of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from transparent_llm.analysis.choices import checked_choice
from transparent_llm.analysis.rows import Row
from transparent_llm.contract import TransparentLlm

POINTS = ("out", "in", "after_attn")
"""Of a layer, where the residual stream is read: the methods `residual_out` and so on."""


def checked_positions(row: Row, positions: Sequence[int]) -> list[int]:
    """Positions of a row counted from 0, negative ones from its last token; all of them where none is named.

    Raises:
        IndexOutOfRangeError: one that the run does not have.
    """
    return [row.position(pos) for pos in positions] if positions else list(range(row.n_pos))


def residual(llm: TransparentLlm, row: Row, point: str, layer: int) -> Float[torch.Tensor, "pos d_model"]:
    """The residual stream of a row at a point of a layer.

    Raises:
        InvalidRequestError: there is no such point.
        IndexOutOfRangeError: there is no such layer.
    """
    stream: torch.Tensor = getattr(llm, f"residual_{checked_choice('point', point, POINTS)}")(layer)
    return stream[row.index]
