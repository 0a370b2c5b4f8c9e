"""The models of a server, by the names that clients use.

Found, loaded when they are asked for, unloaded when others need their memory; never while a call uses them.
"""

from __future__ import annotations

import copy
import gc
import itertools
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from transparent_llm.description import ModelDescription, ModelState
from transparent_llm.errors import InvalidRequestError, NotFoundError, TransparentLlmError
from transparent_llm.quoting import quoted
from transparent_llm_server.incidents import incident
from transparent_llm_server.lifecycle import draining
from transparent_llm_server.models.serving import ServedModel
from transparent_llm_server.registry.budget import ModelBudget, in_use
from transparent_llm_server.registry.loader import ModelLoader
from transparent_llm_server.registry.slot import ModelSlot, ModelSource

log = logging.getLogger(__name__)


_KEPT_RETRIES = 3
"""A model that was loaded is kept until those who wait for it have asked so many times more."""


@dataclass(frozen=True)
class LoadRules:
    """When models are loaded and unloaded."""

    max_bytes: int | None = None
    """Weights of all loaded models. None: no limit."""

    retry_after_s: float = 1.0
    """What a call is told to wait for a model that is being loaded."""

    failed_retry_s: float = 60.0
    """How long to wait before loading a model again after that has failed."""


class Registry:
    """Models by name; an empty name means the only one.

    `on_unload` is told of a model that nobody may use any more; `translate` knows the errors that a device makes.
    """

    def __init__(
        self,
        rules: LoadRules | None = None,
        on_unload: Callable[[ServedModel], None] = lambda _: None,
        translate: Callable[[BaseException], BaseException] = lambda error: error,
    ) -> None:
        self._rules = rules or LoadRules()
        self._on_unload, self._translate = on_unload, translate
        self._budget = ModelBudget(self._rules.max_bytes)
        self._slots: dict[str, ModelSlot] = {}
        self._by_name: dict[str, ModelSlot] = {}
        self._lock = threading.Lock()
        self._ticks = itertools.count(1)
        self._loader = ModelLoader()
        self._is_closing = False

    def __iter__(self) -> Iterator[ServedModel]:
        """The models that are loaded at this moment; others may be loaded or go while they are looked at."""
        with self._lock:
            return iter([slot.model for slot in self._slots.values() if slot.model is not None])

    def descriptions(self) -> tuple[ModelDescription, ...]:
        """Of all models, whether they are loaded or not."""
        with self._lock:
            return tuple(slot.describe() for slot in self._slots.values())

    def states(self) -> dict[str, int]:
        """How many models there are in each state."""
        with self._lock:
            found = Counter(slot.state for slot in self._slots.values())
        return {state.value: found[state] for state in ModelState}

    def add(self, model: ServedModel) -> None:
        """Serve one that is loaded already, for good.

        Raises:
            InvalidRequestError: the name is taken.
        """
        self.offer(ModelSource(model.name, load=lambda _: model))
        with self._lock:
            self._slots[model.name].loaded(model)

    def offer(self, offer: ModelSource) -> None:
        """Serve one that will be loaded.

        Raises:
            InvalidRequestError: one of its names is taken.
        """
        slot = ModelSlot(offer)
        with self._lock:
            for name in slot.names:
                if name in self._by_name or slot.names.count(name) > 1:
                    raise name_taken(name)
            self._slots[offer.name] = slot
            self._by_name.update(dict.fromkeys(slot.names, slot))

    def load_pinned(self) -> None:
        """Load all that are not loaded on demand, on this thread.

        Raises:
            TooLargeError: they do not fit into the budget.
            InvalidRequestError: a model that is not there.
            ModelRefusedError: a model that fails its checks.
        """
        pinned = [slot for slot in self._slots.values() if not slot.offer.on_demand]
        self._budget.require_pinned(pinned)
        for slot in pinned:
            if slot.model is None:
                slot.begin(time.monotonic())
                slot.loaded(slot.offer.load(partial(self._step, slot)))
                self._budget.require_pinned(pinned)

    @contextmanager
    def use(self, name: str) -> Iterator[ServedModel]:
        """The model that a request names, which stays loaded within this block.

        Raises:
            NotFoundError: there is no such model.
            InvalidRequestError: the request names none and several are served.
            UnavailableError: LOADING: it is not loaded; now it will be.
            TooLargeError: it can never be loaded.
            TransparentLlmError: whatever its load ended with, a short time ago.
        """
        slot, model = self._taken(name)
        try:
            yield model
        finally:
            self._leave(slot)

    @contextmanager
    def hold(self, model: ServedModel) -> Iterator[None]:
        """A model that a run was made with stays loaded within this block.

        Raises:
            NotFoundError: RUN_NOT_FOUND: it was unloaded since.
        """
        with self._lock:
            slot = self._by_name.get(model.name)
            if slot is None or slot.model is not model:
                raise NotFoundError(
                    f"the run is gone: its model {model.name!r} was unloaded; send Run again",
                    reason="RUN_NOT_FOUND",
                    metadata={"model": model.name},
                )
            slot.enter(next(self._ticks))
        try:
            yield
        finally:
            self._leave(slot)

    def load_no_more(self) -> None:
        """What is being loaded ends at its next step."""
        self._is_closing = True

    def close(self, timeout_s: float) -> bool:
        """Load nothing more; wait so long for the step of a load that is under way. Whether it came to its end."""
        self.load_no_more()
        return self._loader.close(timeout_s)

    def _taken(self, name: str) -> tuple[ModelSlot, ServedModel]:
        with self._lock:
            slot = self._find(name)
            if slot.model is not None:
                slot.enter(next(self._ticks))
                return slot, slot.model
            raise self._not_loaded(slot)

    def _not_loaded(self, slot: ModelSlot) -> TransparentLlmError:
        """What a call for it is told; its load begins, unless it is under way or failed a short time ago."""
        now, retry_after_s = time.monotonic(), self._rules.retry_after_s
        if slot.state is ModelState.FAILED and now - slot.changed_at < self._rules.failed_retry_s:
            return slot.failure()
        if slot.state is not ModelState.LOADING:
            slots = self._slots.values()
            self._budget.require_possible(slot, slots)
            leaving = self._budget.to_unload(slots, slot.weight_bytes or 0, now)
            if leaving is None:
                return slot.waiting_error(in_use(slots, now), retry_after_s)
            slot.begin(now)
            self._loader.submit(partial(self._load, slot, [other.unload() for other in leaving]))
        return slot.loading_error(now, retry_after_s)

    def _load(self, slot: ModelSlot, leaving: list[ServedModel]) -> None:
        """Make room and load a model, or note why that failed. Runs on the loader's thread."""
        try:
            self._free(leaving, slot.tell)
            self._settle(slot, slot.offer.load(partial(self._step, slot)))
        except BaseException as error:
            self._fail(slot, error)
        if slot.model is None:  # what was loaded of it is garbage now
            _collect()
        self._shrink()

    def _step(self, slot: ModelSlot, words: str) -> None:
        """A step of a load begins."""
        if self._is_closing:
            raise draining()
        log.info("%s: %s", slot.offer.name, words)
        slot.tell(words)

    def _settle(self, slot: ModelSlot, model: ServedModel) -> None:
        """It is loaded, and now its size is known."""
        now = time.monotonic()
        with self._lock:
            slot.weight_bytes = model.description.weight_bytes or slot.weight_bytes
            self._budget.require_possible(slot, self._slots.values())
            kept_until = now + _KEPT_RETRIES * self._rules.retry_after_s
            slot.loaded(model, next(self._ticks), kept_until)
        log.info("%s: loaded in %.1f s, %d bytes", slot.offer.name, now - slot.changed_at, slot.weight_bytes or 0)

    def _fail(self, slot: ModelSlot, error: BaseException) -> None:
        told = self._translate(error)
        if not isinstance(told, TransparentLlmError):
            told = incident(f"loading model {slot.offer.name!r}", error)
        log.warning("%s: not loaded: %s", slot.offer.name, told.message)
        with self._lock:
            slot.fail(copy.copy(told), time.monotonic())  # without the frames that hold what was loaded

    def _leave(self, slot: ModelSlot) -> None:
        with self._lock:
            slot.leave(next(self._ticks))
        self._shrink()

    def _shrink(self) -> None:
        """Unload who must leave, if more is loaded than may be and nobody could be unloaded when that began."""
        with self._lock:
            leaving = [slot.unload() for slot in self._budget.over(self._slots.values(), time.monotonic())]
        if leaving:
            self._loader.submit(partial(self._free, leaving, lambda _: None))

    def _free(self, leaving: list[ServedModel], tell: Callable[[str], None]) -> None:
        """Forget these models, and all that was made with them."""
        if not leaving:
            return
        names = ", ".join(model.name for model in leaving)
        tell(f"unloading {names}")
        for model in leaving:
            self._on_unload(model)
        leaving.clear()
        del model
        _collect()
        log.info("%s: unloaded", names)

    def _find(self, name: str) -> ModelSlot:
        if name in self._by_name:
            return self._by_name[name]
        names = ", ".join(self._by_name)
        if name:
            raise NotFoundError(
                f"there is no model {quoted(name)}; the models are: {names}",
                reason="MODEL_NOT_FOUND",
                metadata={"model": name, "models": names},
            )
        if not self._slots:
            raise NotFoundError("no model is served", reason="MODEL_NOT_FOUND", metadata={"model": "", "models": ""})
        if len(self._slots) != 1:
            raise InvalidRequestError(
                f"several models are served, name one: {names}", reason="MODEL_REQUIRED", metadata={"models": names}
            )
        return next(iter(self._slots.values()))


def _collect() -> None:
    """Give memory back: modules of a bridge know each other in circles, which only the collector undoes."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def name_taken(name: str) -> InvalidRequestError:
    """The error for a second model of one name."""
    return InvalidRequestError(f"two models are named {name!r}; write --model ALIAS=NAME_OR_DIR")
