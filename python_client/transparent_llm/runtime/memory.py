"""Memory for large results, without a page fault for each of its pages.

Where the system gives huge pages, a gigabyte costs 500 faults, not 250,000. And what was freed is used again: large
results, when one of the same size is wanted, and what messages on their way pass through.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import math
import mmap
import sys
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from functools import cache

import torch

from transparent_llm.errors import TooLargeError

_LARGE_BYTES = 32 * 2**20
"""What is smaller the GNU C library can keep and give out again: its M_MMAP_THRESHOLD goes up to here by itself."""

_KEPT_BYTES = 2**30
"""Of freed results, at the most. The system may take these pages at any time (MADV_FREE of madvise(2))."""

_M_ARENA_MAX = -8
"""Of malloc.h."""

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


def share_heap() -> None:
    """Have all threads that come allocate from one heap: for a process with many, before they start.

    The GNU C library gives many of them a heap of their own each, and what was freed at the end of such a one never
    goes back: a hundred threads that once parsed a large message would keep it a hundred times (mallopt(3)).
    """
    if (mallopt := _of_c_library("mallopt")) is not None:
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system what was freed and is kept (malloc_trim(3)): takes milliseconds, for a rare moment."""
    if (trim := _of_c_library("malloc_trim")) is not None:
        trim(0)


@cache
def set_aside() -> None:
    """Have the garbage collector look no more at what lives now (gc.freeze): for a process that has loaded everything.

    A collection of the oldest goes over all objects of torch and transformers, with the interpreter's lock: 0.3 s on
    a small machine in which nobody is answered, again and again. Of what comes later it costs a millisecond.
    """
    gc.collect()
    gc.freeze()


def require_within(name: str, nbytes: int, max_bytes: int | None) -> None:
    """Refuse a value that its reader has no room for.

    Raises:
        TooLargeError: it takes more than `max_bytes`.
    """
    if max_bytes is not None and nbytes > max_bytes:
        raise TooLargeError(
            f"{name} takes {nbytes} bytes, but this client accepts at most max_bytes={max_bytes}: read a part of it, "
            "as in `with llm.reading(pos=slice(-1, None))`, in a smaller dtype, or raise max_bytes",
            metadata={"needed": str(nbytes), "allowed": str(max_bytes)},
        )


def _of_c_library(name: str) -> Callable[..., int] | None:
    """A function of the GNU C library; None where there is another one."""
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None


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
    """Keep the block of a result that was freed for the next result of its size, or give it back."""
    if len(region) > _KEPT_BYTES:
        return
    with contextlib.suppress(OSError):
        region.madvise(mmap.MADV_FREE)
    _kept.append(region)
    with contextlib.suppress(IndexError):
        while sum(map(len, tuple(_kept))) > _KEPT_BYTES:
            _kept.popleft()
