"""What a read would bring, known before anything is computed or sent."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from transparent_llm.errors import TooLargeError


@dataclass(frozen=True)
class PlannedRead:
    """One value: its shape, and what it takes."""

    name: str
    """Of the method."""

    shape: tuple[int, ...]
    dims: tuple[str, ...]
    """The names of its axes."""

    dtype: torch.dtype
    nbytes: int
    """Of the value, in the memory of whoever reads it."""

    transfer_bytes: int
    """What is sent for it: less than `nbytes` where the value is a product and its factors travel. Weights that a
    client fetches once and keeps, for `decomposed_ffn_out`, are not in it."""


def require_within(name: str, nbytes: int, max_bytes: int | None) -> None:
    """Refuse a value that its reader has no room for.

    Raises:
        TooLargeError: it takes more than `max_bytes`.
    """
    if max_bytes is not None and nbytes > max_bytes:
        raise TooLargeError(
            f"{name} takes {nbytes} bytes, this client takes at most max_bytes={max_bytes}: read a part of it, as in "
            "`with llm.reading(pos=slice(-1, None))`, in a smaller dtype, or raise max_bytes",
            metadata={"needed": str(nbytes), "allowed": str(max_bytes)},
        )
