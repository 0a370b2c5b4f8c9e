"""Fresh memory for large results. Where the system gives huge pages, a gigabyte costs 500 page faults, not 250,000."""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence

import torch

_LARGE_BYTES = 4 * 2**20
_HUGE_PAGES = all(hasattr(mmap, name) for name in ("MADV_HUGEPAGE", "MAP_PRIVATE", "MAP_ANONYMOUS"))


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """An uninitialised tensor, as `torch.empty` gives it.

    Raises:
        MemoryError: there is no room for it.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if not _HUGE_PAGES or n_bytes < _LARGE_BYTES or torch.device(device).type != "cpu":
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    try:
        region = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no memory for a tensor of {n_bytes} bytes: {error}") from None
    with contextlib.suppress(OSError):  # a kernel without them
        region.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(region, dtype=dtype).reshape(tuple(shape))  # the tensor keeps the region alive
