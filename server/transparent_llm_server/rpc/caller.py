"""Whoever waits at the other end of a call: for how long, and whether still."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

import grpc

from transparent_llm.errors import CancelledError, DeadlineError
from transparent_llm.wire.methods import QUEUE_POSITION_HEADER
from transparent_llm_server.models.forward.cancellation import cancellable
from transparent_llm_server.rpc.deadline import Deadline
from transparent_llm_server.rpc.peer import peer_of

_Result = TypeVar("_Result")


class Caller:
    """One call. What it waits for is dropped, if it has not begun, when the client leaves or its time is over."""

    def __init__(self, context: grpc.ServicerContext, owner: str = "") -> None:
        self.owner = owner
        """Whose call it is."""

        self._context = context
        self._deadline = Deadline(context)
        self._cancel_awaited: Callable[[], bool] | None = None
        self._is_watched = False

    def result_of(self, future: Future[_Result]) -> _Result:
        """Wait for work.

        Raises:
            CancelledError: the client has left.
            DeadlineError: the call's time is over.
        """
        self._cancel_awaited = future.cancel
        if not self._is_watching():
            future.cancel()
        remaining = self._deadline.remaining_s
        try:
            return future.result(timeout=remaining)
        except concurrent.futures.CancelledError:
            if self._deadline.is_over():
                raise _late(remaining) from None
            raise CancelledError("the call was cancelled before its turn came") from None
        except concurrent.futures.TimeoutError:
            if future.done() and not future.cancelled():
                return future.result()  # done at the last moment, or a timeout of the work itself
            future.cancel()
            raise _late(remaining) from None
        finally:
            self._cancel_awaited = None
            del future  # with an exception in it, it would keep itself and the work's tensors alive

    @property
    def flow(self) -> str:
        """Whom it takes turns with: its owner, or its connection where nobody says who they are."""
        return self.owner or peer_of(self._context).address

    @property
    def wants_its_place(self) -> bool:
        """Whether it asks to be told how many runs come before its own. An answer that has begun is tried again by
        nobody between the two, so this is for who asks."""
        return any(key == QUEUE_POSITION_HEADER for key, _ in self._context.invocation_metadata())

    def tell_its_place(self, before: int) -> None:
        """Say now how many runs come before its own, unless none does."""
        if before:
            self._context.send_initial_metadata(((QUEUE_POSITION_HEADER, str(before)),))

    @property
    def is_local(self) -> bool:
        """Whether it is on this host, or behind a proxy that is; browsers, which share no memory, never are."""
        peer = peer_of(self._context)
        return peer.kind != "remote" and not peer.is_browser

    def is_there(self) -> bool:
        """Whether the client still waits for an answer: it has not left, and its deadline is not over."""
        return self._context.is_active()

    def require_there(self) -> None:
        """A place where work for a call may end.

        Raises:
            CancelledError: the client has left, or the call's time is over.
        """
        if not self.is_there():
            raise CancelledError("the client has left; nothing more is done for this call")

    def while_there(self, work: Callable[[], _Result]) -> _Result:
        """Do work that ends, where it looks whether to go on, when the client has left or the call's time is over."""

        def goes_on() -> bool:
            self.require_there()
            return True

        with cancellable(goes_on):
            return work()

    def _is_watching(self) -> bool:
        """Be told when the client leaves; whether it is still there."""
        if self._is_watched:
            return self._context.is_active()
        self._is_watched = self._context.add_callback(self._left)
        return self._is_watched

    def _left(self) -> None:
        cancel = self._cancel_awaited
        if cancel is not None:
            cancel()


def _late(remaining_s: float) -> DeadlineError:
    return DeadlineError(f"not finished within the {remaining_s:.1f} s that the call had left")
