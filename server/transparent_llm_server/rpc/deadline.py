"""The end of a call's time, as both ends see it."""

from __future__ import annotations

import threading

import grpc

_AHEAD_S = 0.1
_ROUNDING = 0.01


class Deadline:
    """Made when a call begins to be worked on.

    A client's clock is ahead of this one by the way of the request, and gRPC rounds the timeout that it sends up by as
    much as 1 %. So the client mostly leaves first, and who leaves this shortly before the end leaves because of it.
    """

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context
        self._given_s = self.remaining_s

    @property
    def remaining_s(self) -> float:
        """What threads can wait for; without a deadline it is astronomic."""
        return min(self._context.time_remaining(), threading.TIMEOUT_MAX)

    def is_over(self) -> bool:
        """Whether a call that has ended now has ended for want of time."""
        return self.remaining_s <= _AHEAD_S + _ROUNDING * self._given_s
