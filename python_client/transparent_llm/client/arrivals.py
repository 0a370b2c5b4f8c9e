"""Values for a loop, each as soon as it has come, while those after it are under way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextvars import copy_context
from queue import SimpleQueue
from typing import Generic, TypeVar

from transparent_llm.client.transport.interrupt import Interruptible

_Value = TypeVar("_Value")


def arrivals(fetch: Callable[[Callable[[_Value], None], Interruptible], object]) -> Iterator[_Value]:
    """What `fetch` gives, called in a thread of its own when the first value is asked for.

    It takes what comes whether or not the loop is at work with a value, so that no call runs into its deadline by that.
    A loop that is left cancels the call; an error of `fetch` is raised when all that came before it has been given.
    """
    came: SimpleQueue[_Value | _End[_Value]] = SimpleQueue()
    interruptible = Interruptible()

    def work() -> None:
        error = None
        try:
            fetch(came.put, interruptible)
        except BaseException as raised:  # the loop's thread raises it
            error = raised
        came.put(_End(error))

    threading.Thread(target=copy_context().run, args=(work,), name="fetch", daemon=True).start()
    try:
        while not isinstance(value := came.get(), _End):
            yield value
        if value.error is not None:
            raise value.error
    finally:
        interruptible.cancel()


class _End(Generic[_Value]):
    def __init__(self, error: BaseException | None) -> None:
        self.error = error
