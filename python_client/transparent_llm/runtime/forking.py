"""What a process that was forked must have anew: threads of its parent are not there, and what they held stays held."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Protocol


class _Holder(Protocol):
    _lock: threading.Lock


_holders: weakref.WeakSet[_Holder] = weakref.WeakSet()


def lock_of(holder: _Holder) -> threading.Lock:
    """A lock for `holder._lock`, in whose place a forked child finds a new one: a thread may have had it."""
    _holders.add(holder)
    return threading.Lock()


def in_child(callback: Callable[[], None]) -> None:
    """Have it called in each process that is forked from this one, where a system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)


def _renew_locks() -> None:
    for holder in list(_holders):
        holder._lock = threading.Lock()


in_child(_renew_locks)
