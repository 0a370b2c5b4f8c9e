"""A place for one model of a server: loaded or not, what is known of it, and who uses it."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

from transparent_llm.contract import ModelInfo
from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.errors import TransparentLlmError, UnavailableError
from transparent_llm_server.models.serving import ServedModel

Load = Callable[[Callable[[str], None]], ServedModel]
"""Loads a model; tells what it does to the function that it is given."""


@dataclass(frozen=True)
class ModelSource:
    """A model that can be loaded."""

    name: str
    load: Load
    aliases: tuple[str, ...] = ()
    on_demand: bool = False
    weight_bytes: int | None = None
    """What it will take of memory; None where only loading it tells."""

    known: ModelDescription | None = None
    """What can be said before it is loaded."""


class ModelSlot:
    """The state of one model. No lock of its own: its registry's guards it."""

    def __init__(self, offer: ModelSource) -> None:
        self.offer = offer
        self.state = ModelState.UNLOADED
        self.model: ServedModel | None = None
        self.weight_bytes = offer.weight_bytes
        """Of memory, as far as it is known."""

        self.uses = 0
        """Calls under way."""

        self.used_last = 0
        """Grows with every use of any model."""

        self.error: TransparentLlmError | None = None
        self.changed_at = 0.0
        self._kept_until = 0.0
        self._step = ""
        info = ModelInfo(offer.name, 0, 0, 0, 0, 0)
        self._known = offer.known or ModelDescription(info, "", dtype=None, device="", detail="not loaded yet")
        self._first_words = self._known.detail

    @property
    def names(self) -> tuple[str, ...]:
        """All names that clients may use."""
        return (self.offer.name, *self.offer.aliases)

    @property
    def held_bytes(self) -> int:
        """What it takes of the budget now, or will have taken when it is loaded."""
        return (self.weight_bytes or 0) if self.state in (ModelState.LOADED, ModelState.LOADING) else 0

    def is_idle(self, now: float) -> bool:
        """Whether it could be unloaded now: those who waited for its load have had the time to come."""
        return self.offer.on_demand and self.state is ModelState.LOADED and not self.uses and now >= self._kept_until

    def enter(self, tick: int) -> None:
        """A call begins to use it."""
        self.uses += 1
        self.used_last, self._kept_until = tick, 0.0

    def leave(self, tick: int) -> None:
        """A call that used it ends."""
        self.uses -= 1
        self.used_last = tick

    def begin(self, now: float) -> None:
        """Its load begins, or waits for that of another one."""
        self.state, self.changed_at, self.error = ModelState.LOADING, now, None
        self.tell("waiting for another model to be loaded")

    def tell(self, words: str) -> None:
        """What its load does now."""
        self._step = words

    def loaded(self, model: ServedModel, tick: int = 0, kept_until: float = 0.0) -> None:
        """It can be used, and is kept until then even if nobody does."""
        self.used_last, self._kept_until = tick, kept_until
        self.state, self.model, self._step = ModelState.LOADED, model, ""
        self._known = model.description
        self.weight_bytes = model.description.weight_bytes or self.weight_bytes

    def unload(self) -> ServedModel:
        """It can be used no more; the model, which nobody may keep."""
        assert self.model is not None
        model, self.model, self.state = self.model, None, ModelState.UNLOADED
        return model

    def fail(self, error: TransparentLlmError, now: float) -> None:
        """It could not be loaded."""
        self.state, self.error, self.changed_at, self._step = ModelState.FAILED, error, now, ""

    def failure(self) -> TransparentLlmError:
        """Why it could not be loaded: a copy for each caller, as an exception keeps the frames that it went through."""
        assert self.error is not None
        return copy.copy(self.error)

    def loading_error(self, now: float, retry_after_s: float) -> UnavailableError:
        """What a call is told meanwhile."""
        seconds = max(0.0, now - self.changed_at)
        return UnavailableError(
            f"model {self.offer.name!r} is being loaded: {self._step}, {seconds:.1f} s so far; "
            f"try again in {retry_after_s:g} s",
            reason="LOADING",
            metadata={
                "model": self.offer.name,
                "state": self.state.value,
                "seconds": f"{seconds:.1f}",
                "detail": self._step,
            },
            retry_after_s=retry_after_s,
        )

    def waiting_error(self, in_use: str, retry_after_s: float) -> UnavailableError:
        """What a call is told while others take the memory that its model needs."""
        detail = f"waiting for memory: {in_use} in use"
        return UnavailableError(
            f"model {self.offer.name!r} cannot be loaded yet, {detail}; try again in {retry_after_s:g} s",
            reason="LOADING",
            metadata={"model": self.offer.name, "state": self.state.value, "seconds": "0.0", "detail": detail},
            retry_after_s=retry_after_s,
        )

    def describe(self) -> ModelDescription:
        """What is known of it, with its state."""
        details = {
            ModelState.LOADED: "",
            ModelState.LOADING: self._step,
            ModelState.UNLOADED: self._first_words,
            ModelState.FAILED: self.error.message if self.error is not None else "",
        }
        if self.model is not None:
            with contextlib.suppress(TransparentLlmError):  # whoever uses it is told
                self.model.renew()
            self._known = self.model.description
        return dataclasses.replace(
            self._known,
            state=self.state,
            detail=details[self.state],
            aliases=self.offer.aliases,
            on_demand=self.offer.on_demand,
            weight_bytes=self.weight_bytes or 0,
        )
