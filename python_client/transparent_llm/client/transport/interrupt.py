"""Ctrl-C during a call. Raised in the middle of gRPC's code it can leave a lock of the channel held for ever:
`threading.Condition.__enter__` is Python code, and an exception there comes after the lock was taken.

So the key cancels the call, and `KeyboardInterrupt` is raised when gRPC has returned.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Protocol


class Cancellable(Protocol):
    """What can be ended from another thread: a call of gRPC, of either kind."""

    def cancel(self) -> bool:
        """End it, if it has not ended; whether that had an effect."""


class Interruptible:
    """A block in which gRPC is at work. In other threads than the main one, only `cancel` ends it."""

    def __init__(self) -> None:
        self._call: Cancellable | None = None
        self._is_pressed = self._is_active = False

    def __enter__(self) -> Interruptible:
        if threading.current_thread() is threading.main_thread():
            self._is_active = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._is_active:
            signal.signal(signal.SIGINT, self._pressed)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._is_active:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self._call = None
        if self._is_pressed and self._is_active:
            raise KeyboardInterrupt from None

    @property
    def is_cancelled(self) -> bool:
        """Whether Ctrl-C or `cancel` has ended it."""
        return self._is_pressed

    def attach(self, call: Cancellable) -> None:
        """This is the call that Ctrl-C or `cancel` ends."""
        self._call = call
        if self._is_pressed:
            call.cancel()

    def cancel(self) -> None:
        """End the call, and those that would follow it."""
        self._is_pressed = True
        call = self._call
        if call is not None:
            call.cancel()

    def _pressed(self, _number: int, _frame: FrameType | None) -> None:
        """In the main thread, between two of its steps: gRPC's locks let the thread that holds them in again."""
        self.cancel()
