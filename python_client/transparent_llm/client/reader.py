"""Reads of a run, by the shortest way: what is kept, what can be multiplied here, what is best read together."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from transparent_llm.client import expecting, planning
from transparent_llm.client.cache import ByteLimitedCache
from transparent_llm.client.config import ClientConfig
from transparent_llm.client.plan import PlannedRead
from transparent_llm.client.prefetch import Prefetches
from transparent_llm.client.products import Products
from transparent_llm.client.read_ahead import AccessPattern, Indices
from transparent_llm.client.reads import WHOLE, Read, grouped, integers
from transparent_llm.client.transport.calls import Calls
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.client.weights import Weights
from transparent_llm.description import ModelDescription
from transparent_llm.errors import InternalError, InvalidRequestError, NotSupportedError, TransparentLlmError
from transparent_llm.run_input import RunInput
from transparent_llm.selection import Selection
from transparent_llm.wire import fetch, options
from transparent_llm.wire import model as wire_model
from transparent_llm.wire import runs as wire_runs
from transparent_llm.wire.expected import Expected
from transparent_llm.wire.methods import METHODS

Named = dict[str, torch.Tensor]
"""What came for one read: the value, or its factors under their names."""

_WALKED = frozenset(fetch.FETCHED_METHODS - {"tokens", "logits"})
"""Methods that code calls again and again with another index."""

_ITEMS_PER_CALL = 2000
"""Of a Fetch, or reads of a Plan, which has two items for each: no server refuses so many."""


@dataclass(frozen=True, eq=False)
class CurrentRun:
    """What the client knows of a run."""

    run_input: RunInput
    key: str
    result: wire_runs.RunResult


class Shared:
    """What a client and its copies have in common."""

    def __init__(self, calls: Calls, config: ClientConfig) -> None:
        self.calls = calls
        self.cache: ByteLimitedCache[Named] = ByteLimitedCache(config.cache_bytes, _size)
        self.weights = Weights(calls)
        self._descriptions: dict[str, ModelDescription] = {}
        self._features: frozenset[str] = frozenset()
        self._lock = threading.Lock()

    def description(self, digest: str) -> ModelDescription | None:
        """The model with this digest, asked for once; None if it is not served any more."""
        with self._lock:
            if digest not in self._descriptions:
                info = self.calls.unary("ServerInfo", wire_model.server_request(), wire_model.server_from_wire)
                self._descriptions.update({model.digest: model for model in info.models})
                self._features = frozenset(info.features)
            return self._descriptions.get(digest)

    def known(self, digest: str) -> ModelDescription | None:
        """The same, if it was asked for before."""
        with self._lock:
            return self._descriptions.get(digest)

    def has(self, feature: str) -> bool:
        """Whether the server, once it was asked for a description, said that it can do this."""
        return feature in self._features


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
        self._under_way = Prefetches(config.timeout_s)

    def forget(self, run: CurrentRun | None) -> None:
        """A new run begins: nothing of the old one is kept, no walk goes on."""
        self._walking = _Walking()
        self._under_way.drop()
        if run is not None:
            self._shared.cache.forget(lambda key: key[0] is run)  # type: ignore[index]

    def read(self, run: CurrentRun, name: str, indices: Sequence[Any], reading: Selection) -> torch.Tensor:
        """One value. It belongs to the caller, who may write to it."""
        read = (name, integers(name, indices))
        key, walk = self._key(run, read, reading), self._walk(name, read[1])
        self._under_way.wait_for(key)
        held, is_kept = self._shared.cache.get(key), True
        if held is None:
            held, is_kept = self._load(run, read, reading, walk)
        else:
            self._begin_ahead(run, read, reading, walk)
        return self._value(run, read, held, reading, is_kept=is_kept)

    def read_many(self, run: CurrentRun, reads: Sequence[Read], reading: Selection) -> list[torch.Tensor]:
        """Values in order; what is not kept comes in one stream."""
        wanted = [(name, integers(name, indices)) for name, indices in reads]
        held = self._all(run, wanted, reading)
        return [self._value(run, read, held[read], reading, is_kept=True) for read in wanted]

    def prefetch(self, run: CurrentRun, reads: Sequence[Read], reading: Selection) -> None:
        """Have them kept."""
        self._all(run, [(name, integers(name, indices)) for name, indices in reads], reading)

    def plan(self, run: CurrentRun, reads: Sequence[Read], reading: Selection) -> list[PlannedRead]:
        """What they are, and what would be sent for each."""
        self._shared.description(run.result.model_digest)
        if not self._shared.has("plan"):
            raise NotSupportedError("this server cannot plan reads; it is of an older version")
        wanted = [(name, integers(name, indices)) for name, indices in reads]
        parts = (wanted[start : start + _ITEMS_PER_CALL] for start in range(0, max(1, len(wanted)), _ITEMS_PER_CALL))
        return [planned for part in parts for planned in self._plan(run, part, reading)]

    def _plan(self, run: CurrentRun, reads: Sequence[Read], reading: Selection) -> list[PlannedRead]:
        items = [self._item(run, read, reading) for read in reads]
        request = planning.request(run.result.run_id, reads, items, reading)
        expected = [self._expected(run, read, reading) for read in reads]
        expected += [self._expected(run, read, reading, item) for read, (_, item) in zip(reads, items, strict=True)]
        return self._shared.calls.unary("Plan", request, partial(planning.planned, expected), run.key)

    def of_model(self, run: CurrentRun | None, name: str, request: Any, reading: Selection) -> torch.Tensor:
        """A value of the model alone, for which a request was made."""
        options.fill(request, reading.of(METHODS[name].dims or ()), reading.dtype)
        model = None if run is None else self._shared.known(run.result.model_digest)
        return self._shared.calls.tensor(METHODS[name].rpc, request, expecting.of_model(name, model, reading))

    def neuron_output(self, run: CurrentRun | None, layer: int, neuron: int) -> torch.Tensor | None:
        """A row of weights that are kept, if they are or should be."""
        model = None if run is None else self._shared.description(run.result.model_digest)
        if model is None or not self._shared.has("neuron_outputs"):
            return None
        row = self._shared.weights.row_if_kept(model, layer, neuron)
        return None if row is None else row.clone()

    def _all(
        self,
        run: CurrentRun,
        reads: Sequence[Read],
        reading: Selection,
        interruptible: Interruptible | None = None,
    ) -> dict[Read, Named]:
        cache = self._shared.cache
        keys = {read: self._key(run, read, reading) for read in reads}
        held = {key: cache.get(key) for key in keys.values()}
        missing = list({key: read for read, key in keys.items() if held[key] is None}.values())  # two names, one value
        for start in range(0, len(missing), _ITEMS_PER_CALL):
            part = missing[start : start + _ITEMS_PER_CALL]
            for read, named in zip(part, self._fetch(run, part, reading, interruptible), strict=True):
                held[keys[read]] = named
                cache.put(keys[read], named)
        return {read: found for read, key in keys.items() if (found := held[key]) is not None}

    def _load(self, run: CurrentRun, read: Read, reading: Selection, walk: AccessPattern | None) -> tuple[Named, bool]:
        """What a read needs, and whether it is kept; with it come those that a walk will ask for next."""
        ahead = self._ahead(run, read, walk, reading)
        if ahead:
            try:
                found = self._all(run, [read, *ahead], reading)
                return found[read], True
            except TransparentLlmError:
                self._walking.walks.pop(read[0], None)  # one of those ahead cannot be read; this one perhaps can
        method = METHODS[read[0]]
        request = method.request(run.result.run_id, *read[1])
        self._set_options(run, read, reading, request)
        expected = [self._expected(run, read, reading, request)]
        (named,) = grouped([read[0]], self._shared.calls.tensors(method.rpc, request, expected, run.key))
        self._entry_bytes[read[0]] = _size(named)
        return named, self._shared.cache.put(self._key(run, read, reading), named)

    def _begin_ahead(self, run: CurrentRun, read: Read, reading: Selection, walk: AccessPattern | None) -> None:
        """The last of what was read ahead is asked for: have the next fetched while the caller is at work with it."""
        model = self._shared.description(run.result.model_digest) if walk is not None and walk.noticed else None
        if model is None or walk is None:
            return
        following = walk.next(_sizes(read[0], run, model))
        if following is None or self._is_here(self._key(run, (read[0], following), reading)):
            return
        ahead = self._ahead(run, read, walk, reading)
        if ahead:
            keys = [self._key(run, other, reading) for other in ahead]
            self._under_way.begin(keys, lambda interruptible: self._all(run, ahead, reading, interruptible))

    def _is_here(self, key: tuple[object, ...]) -> bool:
        """Or will be soon."""
        return key in self._under_way or self._shared.cache.get(key) is not None

    def _ahead(self, run: CurrentRun, read: Read, walk: AccessPattern | None, reading: Selection) -> list[Read]:
        """Reads that are likely to come next and not kept yet."""
        name, entry_bytes = read[0], self._entry_bytes.get(read[0], 0)
        if walk is None or not walk.noticed or not self._shared.cache.keeps(entry_bytes):
            return []
        model = self._shared.description(run.result.model_digest)
        if model is None or not self._shared.has("fetch"):
            return []
        most_bytes = min(self._read_ahead_bytes, self._shared.cache.largest)
        found = walk.ahead(_sizes(name, run, model), entry_bytes, most_bytes)
        reads = [(name, indices) for indices in found]
        return [ahead for ahead in reads if not self._is_here(self._key(run, ahead, reading))]

    def _fetch(
        self, run: CurrentRun, reads: Sequence[Read], reading: Selection, interruptible: Interruptible | None
    ) -> list[Named]:
        items = [self._item(run, read, reading) for read in reads]
        message = fetch.request(run.result.run_id, items)
        expected = [self._expected(run, read, reading, item) for read, (_, item) in zip(reads, items, strict=True)]
        arrived = self._shared.calls.tensors("Fetch", message, expected, run.key, interruptible)
        return grouped([name for name, _ in reads], arrived)

    def _item(self, run: CurrentRun, read: Read, reading: Selection) -> tuple[str, Any]:
        """Of a Fetch or a Plan."""
        if read[0] not in fetch.FETCHED_METHODS:
            raise InvalidRequestError(
                f"{read[0]!r} cannot be fetched; what can: {', '.join(sorted(fetch.FETCHED_METHODS))}"
            )
        item = METHODS[read[0]].request("", *read[1])
        self._set_options(run, read, reading, item)
        return read[0], item

    def _expected(self, run: CurrentRun, read: Read, reading: Selection, request: Any = None) -> Expected:
        """What must come for a read: its value, or what a request allows."""
        model, tokens = self._shared.known(run.result.model_digest), run.result.tokens
        factored = request is not None and options.allows_factors(request)
        return expecting.of_run(read, (tokens.shape[0], tokens.shape[1]), model, reading, factored=factored)

    def _set_options(self, run: CurrentRun, read: Read, reading: Selection, request: Any) -> None:
        method = METHODS[read[0]]
        axes = reading.of(method.dims or ())
        factored = self._is_factored(run, read, axes)
        if factored and method.weights is not None:
            axes = {}  # its factors are small; the part is cut here
        dtype = None if factored or method.integers else reading.dtype
        options.fill(request, axes, dtype, factored=factored)

    def _is_factored(self, run: CurrentRun, read: Read, axes: dict[str, slice]) -> bool:
        """Whether a product is best made here, where it is known how large it must be.

        Those of neurons are made by weights that are or will be kept.
        """
        method = METHODS[read[0]]
        if not method.parts or method.is_parts:
            return False
        model, layer = self._shared.description(run.result.model_digest), read[1][1]
        if model is None or method.weights is None or not self._shared.has(method.weights):
            return model is not None and method.weights is None
        if layer is None or not 0 <= layer < len(model.d_ffn):
            return False  # the server says what is wrong
        weights = self._shared.weights
        return weights.has_layer(model, layer) if axes else weights.keeps_layer(model, layer)

    def _value(self, run: CurrentRun, read: Read, named: Named, reading: Selection, *, is_kept: bool) -> torch.Tensor:
        if WHOLE in named:
            value = named[WHOLE].clone() if is_kept else named[WHOLE]
        elif "pattern" in named:
            value = self._products.attn(read, named)
        else:
            value = self._products.ffn(read, named, self._shared.description(run.result.model_digest), reading)
        if not self._expected(run, read, reading).is_shape(value.shape):
            raise InternalError(
                f"{self._shared.calls.config.target} broke the protocol: {read[0]} is {list(value.shape)}, uncut or of "
                "another shape than its factors said"
            )
        return value if reading.dtype is None or METHODS[read[0]].integers else value.to(reading.dtype)

    def _walk(self, name: str, indices: Indices) -> AccessPattern | None:
        if not self._read_ahead_bytes or name not in _WALKED:
            return None
        walk = self._walking.walks.setdefault(name, AccessPattern())
        walk.step(indices)
        return walk

    def _key(self, run: CurrentRun, read: Read, reading: Selection) -> tuple[object, ...]:
        """Names a read of a run; `residual_out` of a layer is `residual_in` of the next, where there is one."""
        name, indices = read
        if name == "residual_out" and indices[0] is not None:
            model = self._shared.description(run.result.model_digest)
            if model is not None and 0 <= indices[0] < model.info.n_layers - 1:
                name, indices = "residual_in", (indices[0] + 1,)
        return (run, name, indices, reading)


def _sizes(name: str, run: CurrentRun, model: ModelDescription) -> Indices:
    """Of the axes that a method's indices go along."""
    batch, n_pos = run.result.tokens.shape
    sizes = {"batch": batch, "pos": n_pos, "layer": model.info.n_layers, "head": model.info.n_heads}
    return tuple(sizes[axis] for axis in METHODS[name].axes)


def _size(named: Named) -> int:
    return sum(tensor.nbytes for tensor in named.values())
