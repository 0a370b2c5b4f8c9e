"""Memory for large results, without a page fault for each of its pages.

Where the system gives huge pages, a gigabyte costs 500 faults, not 250,000. And what was freed is used again: large
results, when one of the same size is wanted, and what messages on their way pass through.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import mmap
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

import torch

_LARGE_BYTES = 32 * 2**20
"""What is smaller the GNU C library can keep and give out again: its M_MMAP_THRESHOLD goes up to here by itself."""

_KEPT_BYTES = 2**30
"""Of freed results, at the most. The system may take these pages at any time (MADV_FREE of madvise(2))."""

_HUGE_PAGES = all(hasattr(mmap, name) for name in ("MADV_HUGEPAGE", "MADV_FREE", "MAP_PRIVATE", "MAP_ANONYMOUS"))
_kept: deque[mmap.mmap] = deque()  # oldest first; its steps are atomic, as a result can be freed at any point


@cache
def keep_freed_pages() -> None:
    """Have the C library keep the memory of messages of a megabyte, which come and go by the hundred in a stream.

    The GNU C library gives freed memory at the end of the heap back at once, and every page of the next message is
    a fault again, until it has seen a larger block go: its thresholds then follow (mallopt(3), M_MMAP_THRESHOLD). This
    is such a block. Nobody touches it, so it takes no memory. Other C libraries are not harmed.
    """
    torch.empty(_LARGE_BYTES - 2**20, dtype=torch.uint8)


def give_back_freed_pages() -> None:
    """Have the C library give back what a thread has just freed by the hundred megabytes, which it would keep for that
    thread. Takes some milliseconds; what messages on their way pass through is a page fault again once.
    """
    trim = _malloc_trim()
    if trim is not None:
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    """Of the GNU C library; others have none."""
    try:
        return ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return None


def empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device | str = "cpu") -> torch.Tensor:
    """An uninitialised tensor, as `torch.empty` gives it.

    Raises:
        MemoryError: there is no room for it.
    """
    n_bytes = math.prod(shape) * dtype.itemsize
    if not _HUGE_PAGES or n_bytes < _LARGE_BYTES or torch.device(device).type != "cpu":
        return torch.empty(tuple(shape), dtype=dtype, device=device)
    region = _kept_one(n_bytes) or _fresh(n_bytes)
    loan = (ctypes.c_char * n_bytes).from_buffer(region)
    weakref.finalize(loan, _keep, region).atexit = False
    return torch.frombuffer(loan, dtype=dtype).reshape(tuple(shape))  # the tensor keeps the loan alive


def _fresh(n_bytes: int) -> mmap.mmap:
    try:
        region = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    except (OSError, OverflowError) as error:
        raise MemoryError(f"no memory for a tensor of {n_bytes} bytes: {error}") from None
    with contextlib.suppress(OSError):  # a kernel without them
        region.madvise(mmap.MADV_HUGEPAGE)
    return region


def _kept_one(n_bytes: int) -> mmap.mmap | None:
    for _ in range(len(_kept)):
        with contextlib.suppress(IndexError):  # another thread took it
            region = _kept.popleft()
            if len(region) == n_bytes:
                return region
            _kept.append(region)
    return None


def _keep(region: mmap.mmap) -> None:
    """A result was freed."""
    if len(region) > _KEPT_BYTES:
        return
    with contextlib.suppress(OSError):
        region.madvise(mmap.MADV_FREE)
    _kept.append(region)
    with contextlib.suppress(IndexError):
        while sum(map(len, tuple(_kept))) > _KEPT_BYTES:
            _kept.popleft()
