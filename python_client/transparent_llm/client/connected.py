"""What a client object is made of, and how it is copied, pickled and closed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import torch
from jaxtyping import Float

from transparent_llm.analysis.vector_tokens import VectorTokens
from transparent_llm.client.arrivals import arrivals
from transparent_llm.client.ask import Ask
from transparent_llm.client.carrying import carried, restored
from transparent_llm.client.config import ClientConfig
from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.reader import Named, RunReader, Shared
from transparent_llm.client.reads import ReadSpec, Result, as_reads, each
from transparent_llm.client.runs import Runs
from transparent_llm.client.transport.calls import Calls
from transparent_llm.client.transport.interrupt import Interruptible
from transparent_llm.errors import InvalidRequestError
from transparent_llm.interventions.own import OwnEdits
from transparent_llm.runtime.current import OwnSelection
from transparent_llm.runtime.plain_torch import plain_torch
from transparent_llm.selection import Selection
from transparent_llm.wire import requests, responses
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.parameters import MOST_NUMBERS

_Self = TypeVar("_Self", bound="Connected")
_Result = TypeVar("_Result")
AXES = frozenset(axis for method in METHODS.values() for axis in method.value_dims)
"""Of all values: what parts can be asked for of."""


class Connected:
    """The parts. A pickle has the server and the settings: where it is read there is a new connection and no run."""

    def _set_up(self, config: ClientConfig, model: str, device: torch.device) -> None:
        self._config = config
        self._calls = Calls(config)
        self._shared = Shared(self._calls, config)
        self._reader = RunReader(self._shared, config)
        self._own_selection, self._own_edits = OwnSelection(Selection(padding=config.padding)), OwnEdits()
        self._model, self._device = model, device
        self._runs = Runs(self._calls, self._shared.models, model, self._reader)

    def __repr__(self) -> str:
        model = f", model={self._model!r}" if self._model else ""
        batch, n_pos = (0, 0) if self._runs.latest is None else self._runs.latest.result.tokens.shape
        run = f"run of {batch} sentences, {n_pos} positions" if batch else "no run yet"
        return f"<RemoteTransparentLlm({self._config.target!r}{model}): {run}>"

    def has_analyses(self) -> bool:
        """Whether the server computes analyses; one of an older version does not, and they are computed here. No run is
        needed: it is asked once, and again for a model that it did not have then."""
        if (run := self._runs.latest) is not None:
            run.find_model()
        return self._shared.models.offers("analysis")

    def require_feature(self, feature: str) -> None:
        """Raises:
        NotSupportedError: the server is too old to have it.
        """
        self._shared.models.require(feature)

    def vector_tokens(
        self, vector: Float[torch.Tensor, "d_model"], *, normalize: bool, k: int, bottom_k: int
    ) -> VectorTokens | None:
        """The tokens that a vector speaks for and against, found next to the weights: see `top_tokens_of`. None: the
        server is of an older version, or does not tell so many."""
        if max(k, bottom_k) > MOST_NUMBERS or not self._shared.models.offers("top_tokens"):
            return None
        named = (self._model, self._runs.digest)
        request = requests.top_tokens(*named, vector, normalize=normalize, k=k, bottom_k=bottom_k)
        found = self._calls.unary("TopTokens", request, partial(responses.top_tokens, k=k, bottom_k=bottom_k))
        types = (torch.int64, torch.float32, torch.int64, torch.float32, torch.float32)
        return VectorTokens(*(torch.tensor(part, dtype=t, device="cpu") for part, t in zip(found, types, strict=True)))

    def cut_axes(self) -> tuple[str, ...]:
        """Axes that a `reading` block cuts just now."""
        return tuple(axis for axis, _ in self._own_selection.get().axes)

    def _of_reads(self, reads: Sequence[ReadSpec], use: Callable[[CurrentRun, list[Ask]], _Result]) -> _Result:
        """What becomes of some reads of the current run."""
        selection, wanted = self._own_selection.get(), as_reads(reads)
        asked = [(name, given, selection.narrowed(None, parts, AXES)) for name, given, parts in wanted]
        return self._runs.read(lambda run: use(run, [Ask.of(run, *ask) for ask in asked]))

    def _each(self, reads: Sequence[ReadSpec]) -> Iterator[Result]:
        """Values of some reads as they come, each once: a run that was lost is run again, and read from the start."""

        def fetch(put: Callable[[tuple[int, Ask, Named]], None], interruptible: Interruptible) -> None:
            def give(*came: Any) -> None:
                put(came)

            self._of_reads(reads, lambda _, asks: self._reader.read_each(asks, give, interruptible))

        n = 0
        for number, ask, named in arrivals(fetch):
            if number == n:
                with plain_torch():
                    value = self._to_device(self._reader.given(ask, named, is_kept=True))
                yield value
                n += 1

    def _to_device(self, value: Result) -> Result:
        if isinstance(value, tuple):
            return each(value, lambda tensor: tensor.to(self._device))
        return value.to(self._device)

    @contextmanager
    def _within(self: _Self, narrow: Callable[[Selection], Selection]) -> Iterator[_Self]:
        """A block whose reads ask for less."""
        with self._own_selection.within(narrow):
            yield self

    def __copy__(self: _Self) -> _Self:
        twin = object.__new__(type(self))
        twin.__dict__.update(self.__dict__)
        twin._reader = RunReader(self._shared, self._config)
        twin._runs, twin._own_selection = self._runs.copy(twin._reader), self._own_selection.copy()
        twin._own_edits = OwnEdits()
        return twin

    def __deepcopy__(self: _Self, memo: dict[int, Any]) -> _Self:
        """As a copy: of what the two share nothing is ever changed, and a run is an object's own."""
        return self.__copy__()

    def __getstate__(self) -> dict[str, Any]:
        return {"settings": carried(self._config), "model": self._model, "device": str(self._device)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._set_up(restored(state["settings"]), state["model"], torch.device(state["device"]))

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, also of all copies."""
        self._calls.channel.close()


def run_of(source: object, what: str) -> CurrentRun:
    """The current run of another object, which is `what` it is given as.

    Raises:
        InvalidRequestError: it is no such object.
        NotRunError: it has none.
    """
    if not isinstance(source, Connected):
        raise InvalidRequestError(
            f"{what} is an object of the same server with a current run, got {type(source).__name__}"
        )
    return source._runs.current()
