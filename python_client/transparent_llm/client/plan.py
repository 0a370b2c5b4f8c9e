"""What a read would bring, known before anything is computed or sent."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class PlannedRead:
    """One value: its shape, and what it takes."""

    name: str
    """Of the method; of a part: "METHOD.PART"."""

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    """The names of its axes."""

    dtype: torch.dtype
    nbytes: int
    """Of the value, in the memory of whoever reads it."""

    transfer_bytes: int
    """What is sent for it: less than `nbytes` where the value is a product and its factors travel. Weights that a
    client fetches once and keeps, for `decomposed_ffn_out`, are not in it."""

    parts: tuple[PlannedRead, ...] = ()
    """The tensors that the value consists of, if those are several. Shape, axes and type are those of the first then,
    bytes those of all."""
