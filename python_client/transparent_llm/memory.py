"""Memory for large results, without a page fault for each of its pages.

Where the system gives huge pages, a gigabyte costs 500 faults, not 250,000. And what messages on their way pass
through is used again.
"""

from __future__ import annotations

import contextlib
import math
import mmap
from collections.abc import Sequence
from functools import cache

import torch

_LARGE_BYTES = 32 * 2**20
"""What is smaller the GNU C library can keep and give out again: its M_MMAP_THRESHOLD goes up to here by itself."""

_HUGE_PAGES = all(hasattr(mmap, name) for name in ("MADV_HUGEPAGE", "MAP_PRIVATE", "MAP_ANONYMOUS"))


@cache
def keep_freed_pages() -> None:
    """Have the C library keep the memory of messages of a megabyte, which come and go by the hundred in a stream.

    The GNU C library gives freed memory at the end of the heap back at once, and every page of the next message is
    a fault again, until it has seen a larger block go: its thresholds then follow (mallopt(3), M_MMAP_THRESHOLD). This
    is such a block. Nobody touches it, so it takes no memory. Other C libraries are not harmed.
    """
    torch.empty(_LARGE_BYTES - 2**20, dtype=torch.uint8)


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
