"""Loading, serving, draining: one state, told to health and to every call."""

from __future__ import annotations

import enum
from collections.abc import Callable

from transparent_llm.errors import UnavailableError


class State(enum.Enum):
    """Where a server is in its life."""

    LOADING = "loading"
    SERVING = "serving"
    LEAVING = "leaving"
    DRAINING = "draining"


class Lifecycle:
    """The state of one server; `on_change` is told whether it serves."""

    def __init__(self, on_change: Callable[[bool], None], retry_after_s: float) -> None:
        self._on_change = on_change
        self._retry_after_s = retry_after_s
        self._state = State.LOADING
        on_change(False)

    @property
    def state(self) -> State:
        """Where the server is in its life now."""
        return self._state

    def enter(self, state: State) -> None:
        """Go to the next state; a server that leaves or drains never serves again.

        LEAVING: health says no, so that nobody new comes; whoever comes all the same is served.
        """
        if self._state is State.DRAINING or (self._state is State.LEAVING and state is not State.DRAINING):
            return
        self._state = state
        self._on_change(state is State.SERVING)

    def require_serving(self) -> None:
        """Refuse a call that cannot be answered now.

        Raises:
            UnavailableError: LOADING, with a time to come back, or DRAINING.
        """
        if self._state is State.LOADING:
            raise UnavailableError(
                f"the server is loading its models; try again in {self._retry_after_s:g} s",
                reason="LOADING",
                retry_after_s=self._retry_after_s,
            )
        if self._state is State.DRAINING:
            raise UnavailableError("the server is shutting down; connect to another one", reason="DRAINING")
