"""The memory that models may take together, and who leaves when it is needed."""

from __future__ import annotations

from collections.abc import Iterable

from transparent_llm.description import ModelState
from transparent_llm.errors import TooLargeError
from transparent_llm_server.registry.slot import ModelSlot


class ModelBudget:
    """A limit for the bytes of all loaded weights. None: there is none."""

    def __init__(self, max_bytes: int | None) -> None:
        self._max_bytes = max_bytes

    def require_pinned(self, pinned: Iterable[ModelSlot]) -> None:
        """Refuse to start with models that stay loaded and do not fit.

        Raises:
            TooLargeError: with what they need and what is allowed.
        """
        sizes = {slot.offer.name: slot.weight_bytes or 0 for slot in pinned}
        needed = sum(sizes.values())
        if self._max_bytes is not None and needed > self._max_bytes:
            each = ", ".join(f"{name} {size}" for name, size in sizes.items())
            raise TooLargeError(
                f"the pinned models take {needed} bytes ({each}), model_bytes allows {self._max_bytes}: load some of "
                'them on demand (load = "on_demand"), or raise model_bytes',
                metadata={"needed": str(needed), "allowed": str(self._max_bytes)},
            )

    def require_possible(self, slot: ModelSlot, slots: Iterable[ModelSlot]) -> None:
        """Refuse a model that would not fit if all others that can be unloaded were.

        Raises:
            TooLargeError: with what it needs and what is allowed.
        """
        pinned = sum(other.held_bytes for other in slots if not other.offer.on_demand)
        needed = slot.weight_bytes or 0
        if self._max_bytes is not None and pinned + needed > self._max_bytes:
            raise TooLargeError(
                f"model {slot.offer.name!r} takes {needed} bytes, of model_bytes = {self._max_bytes} the pinned models "
                f"leave {self._max_bytes - pinned}: start the server with a larger model_bytes",
                metadata={"needed": str(needed), "allowed": str(self._max_bytes - pinned)},
            )

    def to_unload(self, slots: Iterable[ModelSlot], needed: int, now: float) -> list[ModelSlot] | None:
        """Who must leave so that so many bytes more fit, least recently used first; None if they do not even then."""
        leaving, over = self._leaving(list(slots), needed, now)
        return None if over > 0 else leaving

    def over(self, slots: Iterable[ModelSlot], now: float) -> list[ModelSlot]:
        """Who must leave as more is loaded than may be, as far as they can."""
        return self._leaving(list(slots), 0, now)[0]

    def _leaving(self, slots: list[ModelSlot], needed: int, now: float) -> tuple[list[ModelSlot], int]:
        """Who leaves, and how many bytes are then still too many."""
        if self._max_bytes is None:
            return [], 0
        over = sum(slot.held_bytes for slot in slots) + needed - self._max_bytes
        leaving = []
        for slot in sorted((slot for slot in slots if slot.is_idle(now)), key=lambda slot: slot.used_last):
            if over <= 0:
                break
            leaving.append(slot)
            over -= slot.held_bytes
        return leaving, over


def in_use(slots: Iterable[ModelSlot], now: float) -> str:
    """The names of those that could be unloaded at another time."""
    held = [slot for slot in slots if slot.offer.on_demand and slot.state in (ModelState.LOADED, ModelState.LOADING)]
    return ", ".join(slot.offer.name for slot in held if not slot.is_idle(now))
