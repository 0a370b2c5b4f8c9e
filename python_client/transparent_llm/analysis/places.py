"""Where an analysis looks: a row of the run, its real positions, points of the residual stream."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float

from transparent_llm.contract import TransparentLlm
from transparent_llm.errors import InvalidRequestError, NotSupportedError
from transparent_llm.quoting import quoted
from transparent_llm.runtime.indexing import checked_index

POINTS = ("out", "in", "after_attn")
"""Of a layer, where the residual stream is read: the methods `residual_out` and so on."""


def n_tokens(llm: TransparentLlm, batch_i: int) -> int:
    """How many positions of a row are no padding."""
    try:
        return int(llm.mask()[batch_i].sum())
    except NotSupportedError:
        return int(llm.tokens().shape[1])


def row_index(llm: TransparentLlm, batch_i: int) -> int:
    """The row, counted from 0.

    Raises:
        IndexOutOfRangeError: the run has no such row.
    """
    return checked_index("batch_i", batch_i, llm.batch_size())


def checked_positions(llm: TransparentLlm, batch_i: int, positions: Sequence[int]) -> list[int]:
    """Positions of a row counted from 0, negative ones from its last token; all of them where none is named.

    Raises:
        IndexOutOfRangeError: one that the run does not have.
    """
    n_pos = int(llm.tokens().shape[1])
    if not positions:
        return list(range(n_pos))
    end = n_tokens(llm, batch_i)
    return [checked_index("pos", pos, n_pos, end) for pos in positions]


def residual(llm: TransparentLlm, batch_i: int, point: str, layer: int) -> Float[torch.Tensor, "pos d_model"]:
    """The residual stream of a row at a point of a layer.

    Raises:
        InvalidRequestError: there is no such point.
        IndexOutOfRangeError: there is no such row or layer.
    """
    if point not in POINTS:
        known = ", ".join(f'"{each}"' for each in POINTS)
        raise InvalidRequestError(f"point must be one of {known}, got {quoted(str(point))}")
    stream: torch.Tensor = getattr(llm, f"residual_{point}")(layer)
    return stream[batch_i]
