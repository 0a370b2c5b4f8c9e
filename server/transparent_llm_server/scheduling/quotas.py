"""What each owner takes of a server over time, and may take at most: positions computed, bytes of tensors sent."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

from transparent_llm.errors import BusyError, InvalidRequestError, TooLargeError
from transparent_llm_server.config.server import ServerConfig

Quantity = Literal["positions", "bytes"]
Period = Literal["minute", "hour"]
Amounts = Mapping[tuple[Quantity, Period], int]
"""A number for some quantities and periods."""

SECONDS: Mapping[Period, int] = {"minute": 60, "hour": 3600}
_STEPS = 60
"""Of a period: what was taken counts for as long as the period and up to one step more."""

_INSTEAD: Mapping[Quantity, tuple[str, str]] = {
    "positions": ("TOO_LONG", "run fewer or shorter sentences at once"),
    "bytes": ("TOO_LARGE", "ask for slices, a smaller dtype or fewer values at once"),
}


def allowed_by(config: ServerConfig) -> Amounts:
    """The quotas that are set.

    Raises:
        InvalidRequestError: some are, where nobody has to say who they are.
    """
    names = {(of, period): f"owner_{of}_per_{period}" for of in get_args(Quantity) for period in SECONDS}
    allowed = {which: getattr(config, name) for which, name in names.items() if getattr(config, name) is not None}
    if allowed and not config.has_authentication:
        set_ones = ", ".join(names[which] for which in allowed)
        raise InvalidRequestError(f"{set_ones} have no effect here: require tokens or client certificates")
    return allowed


class _Window:
    """How much was taken within the last period. Seconds are whole steps, so that memory has a bound."""

    def __init__(self, period_s: int) -> None:
        self._step_s = period_s / _STEPS
        self._taken: deque[tuple[int, int]] = deque()  # the step, and how much in it; the oldest first
        self.total = 0

    def move_to(self, now: float) -> None:
        """Forget what is older than the period."""
        while self._taken and self._taken[0][0] < int(now / self._step_s) - _STEPS:
            self.total -= self._taken.popleft()[1]

    def add(self, amount: int, now: float) -> None:
        step = int(now / self._step_s)
        if self._taken and self._taken[-1][0] == step:
            amount_before = self._taken.pop()[1]
            self._taken.append((step, amount_before + amount))
        else:
            self._taken.append((step, amount))
        self.total += amount

    def take_back(self, amount: int) -> None:
        """Of what was taken last, as far as it is not forgotten."""
        while self._taken and amount > 0:
            step, taken = self._taken.pop()
            less = min(taken, amount)
            amount -= less
            self.total -= less
            if taken > less:
                self._taken.append((step, taken - less))

    def until_at_most(self, total: int, now: float) -> float:
        """Seconds until no more than this counts, if nothing is added."""
        left = self.total
        for step, amount in self._taken:
            if left <= total:
                break
            left -= amount
            wait_s = (step + _STEPS + 1) * self._step_s - now
        return wait_s if self.total > total else 0.0


@dataclass
class _Account:
    """Of one owner."""

    windows: dict[tuple[Quantity, Period], _Window] = field(
        default_factory=lambda: {
            (quantity, period): _Window(SECONDS[period]) for quantity in get_args(Quantity) for period in SECONDS
        }
    )

    def move_to(self, now: float) -> None:
        for window in self.windows.values():
            window.move_to(now)

    @property
    def is_empty(self) -> bool:
        return not any(window.total for window in self.windows.values())


class Quotas:
    """What owners have taken within the last minute and hour, and what they are refused for it. Safe for threads."""

    def __init__(self, clock: Callable[[], float], allowed: Amounts | None = None) -> None:
        self.allowed: Amounts = allowed or {}
        """Where nothing stands there is no quota."""

        self._clock = clock
        self._accounts: dict[str, _Account] = {}
        self._lock = threading.Lock()

    def take(self, owner: str, quantity: Quantity, amount: int) -> None:
        """Count what is about to be computed or sent, or refuse it.

        Raises:
            TooLargeError: it is more than the owner may ever take at once.
            BusyError: QUOTA_EXCEEDED, with the numbers, and when there is room for it.
        """
        with self._lock:
            now = self._clock()
            account = self._accounts.get(owner) or self._accounts.setdefault(owner, _Account())
            account.move_to(now)
            for (of, period), allowed in self.allowed.items():
                if of == quantity:
                    _require(account.windows[of, period], quantity, period, amount, allowed, now)
            for period in SECONDS:
                account.windows[quantity, period].add(amount, now)

    def give_back(self, owner: str, quantity: Quantity, amount: int) -> None:
        """What was counted and then not computed or not sent."""
        with self._lock:
            if owner not in self._accounts:
                return
            for period in SECONDS:
                self._accounts[owner].windows[quantity, period].take_back(amount)

    @contextmanager
    def counted(self, owner: str, quantity: Quantity, amount: int) -> Iterator[Callable[[int], None]]:
        """Around what takes so much at the most: it is told how much it took, bit by bit, and the rest is given back.

        Raises: as `take`.
        """
        self.take(owner, quantity, amount)
        left = amount

        def took(some: int) -> None:
            nonlocal left
            left -= some

        try:
            yield took
        finally:
            if left > 0:
                self.give_back(owner, quantity, left)

    def taken(self) -> dict[str, Amounts]:
        """By all owners who took something within the last hour; the others are forgotten."""
        with self._lock:
            self._forget()
            return {
                owner: {which: window.total for which, window in account.windows.items()}
                for owner, account in self._accounts.items()
            }

    def forget(self) -> None:
        """Owners who took nothing within the last hour. It happens at `taken` too, but somebody has to ask."""
        with self._lock:
            self._forget()

    def _forget(self) -> None:
        now = self._clock()
        for account in self._accounts.values():
            account.move_to(now)
        self._accounts = {owner: account for owner, account in self._accounts.items() if not account.is_empty}


def _require(window: _Window, quantity: Quantity, period: Period, amount: int, allowed: int, now: float) -> None:
    metadata = {"quota": f"{quantity}_per_{period}", "needed": str(amount), "allowed": str(allowed)}
    if amount > allowed:
        reason, instead = _INSTEAD[quantity]
        raise TooLargeError(
            f"this takes {amount} {quantity}, and an owner may take {allowed} per {period} here; {instead}",
            reason=reason,
            metadata=metadata,
        )
    wait_s = window.until_at_most(allowed - amount, now)
    if wait_s > 0:
        raise BusyError(
            f"this takes {amount} {quantity}; you have taken {window.total} of the {allowed} that an owner may take "
            f"per {period} here; try again in {wait_s:.0f} s",
            reason="QUOTA_EXCEEDED",
            metadata={**metadata, "used": str(window.total)},
            retry_after_s=wait_s,
        )
