"""Threads that are there before they are needed."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

from transparent_llm.errors import InvalidRequestError

_STARTED_WITHIN_S = 60.0


class ReadyThreads(ThreadPoolExecutor):
    """A pool of `count` threads, all of which run before the first work comes.

    gRPC hands calls to its pool on the one thread that serves: if the pool had to start a thread there and could not,
    that one would end, and with it all service.

    Raises:
        InvalidRequestError: this process may not start so many.
    """

    def __init__(self, count: int, name: str) -> None:
        super().__init__(count, thread_name_prefix=name)
        all_run = threading.Barrier(count + 1)
        try:
            for _ in range(count):
                self.submit(all_run.wait, _STARTED_WITHIN_S)
            all_run.wait(_STARTED_WITHIN_S)
        except RuntimeError as error:  # of a thread that cannot start; a broken barrier is one too
            n_started = len(self._threads)
            all_run.abort()
            self.shutdown(wait=False, cancel_futures=True)
            raise InvalidRequestError(
                f"only {n_started} of {count} threads named {name!r} could be started ({error}): raise the limit of "
                "this process (ulimit -u, or the pids of its container), or lower --max-streams"
            ) from None
