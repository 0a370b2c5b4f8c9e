"""Reads of a run, by the shortest way: what is kept, what can be multiplied here, what is best read together."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch

from transparent_llm.client import expecting, planning
from transparent_llm.client.ask import Ask
from transparent_llm.client.cache import ByteLimitedCache
from transparent_llm.client.config import ClientConfig
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.models import UNKNOWN_MODEL, Models
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.prefetch import Prefetches
from transparent_llm.client.products import Products
from transparent_llm.client.read_ahead import AccessPattern
from transparent_llm.client.reads import WHOLE, Result, grouped, not_fetched, of_parts
from transparent_llm.client.transport.calls import Calls
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.client.weights import Weights
from transparent_llm.errors import (
    AuthError,
    CancelledError,
    DeadlineError,
    InternalError,
    NotSupportedError,
    TransparentLlmError,
    UnavailableError,
)
from transparent_llm.runtime.indexing import counted
from transparent_llm.selection import Selection
from transparent_llm.wire import requests
from transparent_llm.wire.fetch import FETCHED_METHODS
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.requests import Item, Request

Named = dict[str, torch.Tensor]
"""What came for one read: the value, or its factors or parts under their names."""

Give = Callable[[int, Ask, Named], None]
"""Takes what came for one of several reads, and which of them that is."""

_WALKED = frozenset(FETCHED_METHODS - {"tokens", "logits"})
"""Methods that code calls again and again with another index."""

_BY_MODEL = frozenset({"residual_out", *(name for name, method in METHODS.items() if method.parts)})
"""Methods whose values are named, or made here, by what is known of the model."""

_NOT_OF_ONE_READ = (UnavailableError, DeadlineError, CancelledError, AuthError)
"""Failures of a read together with others that it would have alone too."""

_ITEMS_PER_CALL = 2000
"""Of a Fetch, or reads of a Plan, which has two items for each: no server refuses so many."""


class Shared:
    """What a client and its copies have in common."""

    def __init__(self, calls: Calls, config: ClientConfig) -> None:
        self.calls = calls
        self.cache: ByteLimitedCache[Ask, Named] = ByteLimitedCache(config.cache_bytes, _size)
        self.weights = Weights(calls)
        self.models = Models(calls)


class _Walking(threading.local):
    """What the calls of one thread look like."""

    def __init__(self) -> None:
        self.walks: dict[str, AccessPattern] = {}


class RunReader:
    """Reads for one client object. A walk is a thread's own."""

    def __init__(self, shared: Shared, config: ClientConfig) -> None:
        self._shared = shared
        self._read_ahead_bytes = config.read_ahead_bytes
        self._products = Products(shared.weights, config.target, config.max_bytes)
        self._walking = _Walking()
        self._entry_bytes: dict[str, int] = {}
        self._prefetches = Prefetches(config.timeout_s)

    def forget(self, run: CurrentRun | None) -> None:
        """A new run begins: nothing of the old one is kept, no walk goes on."""
        self._walking = _Walking()
        self._prefetches.drop()
        if run is not None:
            self._shared.cache.forget(lambda key: key.run is run)

    def read(self, ask: Ask) -> Result:
        """One value. It belongs to the caller, who may write to it."""
        self._find_model([ask])
        key, walk = ask.key, self._walk(ask)
        self._prefetches.wait_for(key)
        held, is_kept = self._shared.cache.get(key), True
        if held is None:
            held, is_kept = self._load(ask, walk)
        else:
            self._begin_ahead(ask, walk)
        return self.given(ask, held, is_kept=is_kept)

    def read_many(self, asks: Sequence[Ask]) -> list[Result]:
        """Values in order; what is not kept comes in one stream."""
        held = self._all(asks)
        return [self.given(ask, held[ask], is_kept=True) for ask in asks]

    def read_each(self, asks: Sequence[Ask], give: Give, interruptible: Interruptible) -> None:
        """As `read_many`, but each is given in its turn as soon as it has come, while the server goes on."""
        waiting = deque(enumerate(asks))

        def came(held: Mapping[Ask, Named | None]) -> None:
            while waiting and (named := held.get(waiting[0][1].key)) is not None:
                give(*waiting.popleft(), named)

        self._all(asks, interruptible, came)

    def prefetch(self, asks: Sequence[Ask]) -> None:
        """As `read_many`, for later reads: what fits into the cache then needs no call."""
        self._all(asks)

    def plan(self, run: CurrentRun, asks: Sequence[Ask]) -> list[PlannedRead]:
        """What the values are, and what would be sent for each.

        Raises:
            NotSupportedError: the server is of an older version.
        """
        run.find_model()
        if not self._shared.models.has("plan"):
            raise NotSupportedError("this server cannot plan reads; its version is too old")
        parts = (asks[start : start + _ITEMS_PER_CALL] for start in range(0, max(1, len(asks)), _ITEMS_PER_CALL))
        return [planned for part in parts for planned in self._plan(run, part)]

    def _plan(self, run: CurrentRun, asks: Sequence[Ask]) -> list[PlannedRead]:
        items = [self._item(ask) for ask in asks]
        request = planning.request(run.result.run_id, asks, items)
        return self._shared.calls.unary("Plan", request, partial(planning.planned, asks=asks, items=items), run.key)

    def of_model(
        self, run: CurrentRun | None, name: str, request: Request, selection: Selection, n: int | None = None
    ) -> torch.Tensor:
        """A value of the model alone, that of the run if there is one; `n` where it is asked of so many vectors."""
        model = UNKNOWN_MODEL if run is None else run.model
        return self._shared.calls.tensor(METHODS[name].rpc, request, expecting.of_model(name, model, selection, n))

    def neuron_output(self, run: CurrentRun | None, layer: int | None, neuron: int | None) -> torch.Tensor | None:
        """A row of weights that are kept, if they are or should be."""
        if run is None:
            return None
        run.find_model()
        if not self._shared.models.has("neuron_outputs"):
            return None
        if layer is not None and neuron is not None:
            layer = counted(layer, len(run.model.d_ffn))
            neuron = counted(neuron, run.model.d_ffn[layer]) if 0 <= layer < len(run.model.d_ffn) else neuron
        row = self._shared.weights.row_if_kept(run.model, layer, neuron)
        return None if row is None else row.clone()

    def _all(
        self,
        asks: Sequence[Ask],
        interruptible: Interruptible | None = None,
        came: Callable[[Mapping[Ask, Named | None]], None] | None = None,
    ) -> dict[Ask, Named]:
        self._find_model(asks)
        cache = self._shared.cache
        keys = {ask: ask.key for ask in asks}
        held = {key: cache.get(key) for key in keys.values()}

        def keep(ask: Ask, named: Named) -> None:
            held[keys[ask]] = named
            cache.put(keys[ask], named)
            if came is not None:
                came(held)

        if came is not None:
            came(held)
        missing = list({key: ask for ask, key in keys.items() if held[key] is None}.values())  # two names, one value
        for start in range(0, len(missing), _ITEMS_PER_CALL):
            part = missing[start : start + _ITEMS_PER_CALL]
            for ask, named in zip(part, self._fetch(part, interruptible, came and keep), strict=True):
                keep(ask, named)
        return {ask: found for ask, key in keys.items() if (found := held[key]) is not None}

    def _load(self, ask: Ask, walk: AccessPattern | None) -> tuple[Named, bool]:
        """What a read needs, and whether it is kept; with it come those that a walk will ask for next."""
        ahead = self._ahead(ask, walk)
        if ahead:
            try:
                return self._all([ask, *ahead])[ask], True
            except TransparentLlmError as error:
                if isinstance(error, _NOT_OF_ONE_READ) or error.reason == "BUSY":
                    raise
                self._walking.walks.pop(ask.name, None)  # one of those ahead cannot be read; this one perhaps can
        run, factored = ask.run, self._is_factored(ask)
        request = requests.read(run.result.run_id, ask.item(factored=factored))
        expected = [expecting.of_run(ask, factored=factored)]
        arrived = self._shared.calls.tensors(METHODS[ask.name].rpc, request, expected, run.key)
        (named,) = grouped([ask.name], arrived)
        self._entry_bytes[ask.name] = _size(named)
        return named, self._shared.cache.put(ask.key, named)

    def _begin_ahead(self, ask: Ask, walk: AccessPattern | None) -> None:
        """The last of what was read ahead is asked for: have the next fetched while the caller is at work with it."""
        if walk is None or not walk.noticed:
            return
        ask.run.find_model()
        following = walk.next(ask.sizes)
        if following is None or self._is_here(ask.at(following)):
            return
        ahead = self._ahead(ask, walk)
        if ahead:
            keys = [other.key for other in ahead]
            self._prefetches.begin(keys, lambda interruptible: self._all(ahead, interruptible))

    def _is_here(self, ask: Ask) -> bool:
        """Whether it is kept, or will be soon."""
        return ask.key in self._prefetches or self._shared.cache.get(ask.key) is not None

    def _ahead(self, ask: Ask, walk: AccessPattern | None) -> list[Ask]:
        """Reads that are likely to come next and not kept yet."""
        entry_bytes, cache = self._entry_bytes.get(ask.name, 0), self._shared.cache
        if walk is None or not walk.noticed or not cache.keeps(entry_bytes):
            return []
        ask.run.find_model()
        if not self._shared.models.has("fetch"):
            return []
        found = walk.ahead(ask.sizes, entry_bytes, min(self._read_ahead_bytes, cache.largest))
        return [ahead for ahead in map(ask.at, found) if not self._is_here(ahead)]

    def _fetch(
        self, asks: Sequence[Ask], interruptible: Interruptible | None, came: Callable[[Ask, Named], None] | None
    ) -> list[Named]:
        """What is not kept of one run, which has at least one read here."""

        def whole(number: int, tensors: Sequence[tuple[str, torch.Tensor]]) -> None:
            if came is not None:
                came(asks[number], *grouped([asks[number].name], tensors))

        run, items = asks[0].run, [self._item(ask) for ask in asks]
        request = requests.fetch(run.result.run_id, items)
        expected = [expecting.of_run(ask, factored=item.form.factored) for ask, item in zip(asks, items, strict=True)]
        arrived = self._shared.calls.tensors("Fetch", request, expected, run.key, interruptible, came and whole)
        return grouped([ask.name for ask in asks], arrived)

    def _item(self, ask: Ask) -> Item:
        """Of a Fetch or a Plan."""
        if ask.name not in FETCHED_METHODS:
            raise not_fetched(ask.name)
        return ask.item(factored=self._is_factored(ask))

    def _is_factored(self, ask: Ask) -> bool:
        """Whether a product is best made here, where it is known how large it must be.

        Those of neurons are made by weights that are or will be kept.
        """
        method, model, layer, weights = METHODS[ask.name], ask.run.model, ask.layer, self._shared.weights
        if not method.parts or method.is_parts:
            return False
        if method.weights is None:
            return model is not UNKNOWN_MODEL
        if not self._shared.models.has(method.weights):
            return False
        if layer is None or not 0 <= layer < len(model.d_ffn):
            return False  # the server says what is wrong
        return weights.has_layer(model, layer) if ask.axes else weights.keeps_layer(model, layer)

    def given(self, ask: Ask, named: Named, *, is_kept: bool) -> Result:
        """What the caller gets, with padding as it was chosen."""
        result = self._value(ask, named, is_kept=is_kept)
        ask.run.padding.apply(ask.name, ask.indices, result, ask.selection.padding, ask.axes)
        return result

    def _value(self, ask: Ask, named: Named, *, is_kept: bool) -> Result:
        method = METHODS[ask.name]
        if method.is_parts:
            return of_parts(method, {part: tensor.clone() for part, tensor in named.items()} if is_kept else named)
        if WHOLE in named:
            value = named[WHOLE].clone() if is_kept else named[WHOLE]
        elif "pattern" in named:
            value = self._products.attn(ask, named)
        else:
            value = self._products.ffn(ask, named)
        if method.parts and not expecting.of_run(ask).is_shape(value.shape):
            raise InternalError(
                f"{self._shared.calls.config.target} broke the protocol: {ask.name} is {list(value.shape)}, unsliced, "
                "or of another shape than its factors implied"
            )
        return value if ask.dtype is None else value.to(ask.dtype)

    @staticmethod
    def _find_model(asks: Sequence[Ask]) -> None:
        """Before any of them is named."""
        needing = next((ask for ask in asks if ask.name in _BY_MODEL), None)
        if needing is not None:
            needing.run.find_model()

    def _walk(self, ask: Ask) -> AccessPattern | None:
        if not self._read_ahead_bytes or ask.name not in _WALKED:
            return None
        walk = self._walking.walks.setdefault(ask.name, AccessPattern())
        walk.step(ask.indices)
        return walk


def _size(named: Named) -> int:
    return sum(tensor.nbytes for tensor in named.values())
