"""Reads that another thread is fetching while the caller is still at work with what came before."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Hashable, Iterable

from transparent_llm.client.config import DEFAULT_TIMEOUT_S
from transparent_llm.client.transport.interrupt import Interruptible

log = logging.getLogger("transparent_llm")


class Prefetches:
    """The fetches of one client object, by the keys of what they bring. One that fails is forgotten: whoever wants
    its values asks for them again, and is told.

    Args:
        patience_s: What is waited for longer is dropped, and asked for again as if it had failed: the caller's own
            function for progress may hold its thread up.
    """

    def __init__(self, patience_s: float = DEFAULT_TIMEOUT_S) -> None:
        self._patience_s = patience_s
        self._fetches: dict[Hashable, _Fetch] = {}

    def __contains__(self, key: Hashable) -> bool:
        return key in self._fetches

    def begin(self, keys: Iterable[Hashable], fetch: Callable[[Interruptible], object]) -> None:
        """Start a thread for it; the call that it makes is cancelled when it is dropped."""
        begun = _Fetch(fetch)
        self._fetches.update(dict.fromkeys(keys, begun))

    def wait_for(self, key: Hashable) -> None:
        """Until this one has come, or has failed to. Returns at once if it is not under way."""
        fetch = self._fetches.pop(key, None) if self._fetches else None
        if fetch is not None:
            fetch.wait(self._patience_s)

    def drop(self) -> None:
        """Nobody wants any of it."""
        for fetch in set(self._fetches.values()):
            fetch.interruptible.cancel()
        self._fetches.clear()


class _Fetch:
    def __init__(self, fetch: Callable[[Interruptible], object]) -> None:
        self.interruptible = Interruptible()
        self._fetch = fetch
        self._process = os.getpid()
        self._running = threading.Lock()  # a lock, as Ctrl-C while waiting for one does no harm: see _interrupt
        self._running.acquire()
        threading.Thread(target=self._work, name="read-ahead", daemon=True).start()

    def wait(self, patience_s: float) -> None:
        if self._process != os.getpid():  # the thread is not there in a process that was forked
            return
        if self._running.acquire(timeout=min(patience_s, threading.TIMEOUT_MAX)):
            self._running.release()
        else:
            self.interruptible.cancel()

    def _work(self) -> None:
        try:
            self._fetch(self.interruptible)
        except Exception as error:  # nobody is there to be told; whoever wants the values meets it again
            log.debug("reading ahead failed: %s", error)
        finally:
            self._running.release()
