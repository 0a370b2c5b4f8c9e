"""Analyses of a run as values: shape and type are known from the table, nothing is computed before it is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.interrupt import checking
from transparent_llm.errors import InternalError
from transparent_llm.runtime.indexing import checked_index, integer
from transparent_llm.wire.methods import METHODS, Method, Part
from transparent_llm.wire.parameters import Argument
from transparent_llm_server.models.forward.cancellation import raise_if_cancelled
from transparent_llm_server.models.reading import Reader
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.models.values.value import Computed, Found, Value
from transparent_llm_server.rpc.work import LONG, Sizes, work_of

_POSITIONS = ("pos", "query_pos", "key_pos", "target", "source")


class _AnalysesToo:
    """Reads a run, and what is computed of its values."""

    def __init__(self, run: CompletedRun) -> None:
        self._run = run
        self.reads_are_quick = run.read.reads_are_quick

    def __call__(self, name: str, *arguments: object) -> Found:
        """What the method of that name returns, or the analysis will return."""
        if name not in ANALYSES:
            return self._run.read(name, *arguments)
        return _found(self._run, METHODS[name], arguments)


def reader_of(run: CompletedRun) -> Reader:
    """Reads all that can be asked of a run."""
    return _AnalysesToo(run)


class _Made(Computed):
    """A tensor of an analysis, or a part of it. The first one of an analysis has the work of all."""

    def __init__(
        self,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        compute: Callable[[], torch.Tensor],
        work: int,
        *,
        is_long: bool,
    ) -> None:
        super().__init__(shape, dtype, compute)
        self.work, self.may_be_interrupted = work, is_long

    def select(self, index: Sequence[slice]) -> Value:
        """Computed whole, then cut: as much work."""
        part = super().select(index)
        return _Made(part.shape, self.dtype, part.tensor, self.work, is_long=self.may_be_interrupted)


class _Answer:
    """What one analysis gives, computed once for all of its tensors."""

    def __init__(self, run: CompletedRun, name: str, arguments: Sequence[Argument]) -> None:
        self.name, self.work = name, work_of(name, arguments, _sizes_of(run, arguments))
        # where reads are not quick, weights are materialized, for one at a time
        self.is_long = self.work > LONG and run.read.reads_are_quick
        self._llm, self._read, self._arguments = run.llm, run.read, arguments
        self._made: tuple[torch.Tensor | None, ...] | None = None

    def tensor(self, number: int, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        """One of them, which must be as the table says."""
        if self._made is None:
            self._read("tokens")  # which says so if another run is read by now
            with checking(raise_if_cancelled):
                made = ANALYSES[self.name](self._llm, *self._arguments)
            self._made = made if isinstance(made, tuple) else (made,)
        found = self._made[number]
        if found is None or tuple(found.shape) != shape or found.is_floating_point() != dtype.is_floating_point:
            got = "nothing" if found is None else f"{found.dtype} {list(found.shape)}"
            raise InternalError(f"{self.name} gave {got} where {dtype} {list(shape)} was to come")
        return found.to(dtype)  # of a float64 model they are float64 here


def _found(run: CompletedRun, method: Method, arguments: tuple[Any, ...]) -> Found:
    checked = _checked(run, method, arguments)
    answer, sizes = _Answer(run, method.name, checked), _sizes(run) | method.lengths(checked)
    if not method.is_parts:
        dtype = method.dtype or run.model.description.dtype or torch.float32
        return _value(answer, 0, Part("value", method.dims or (), dtype), sizes)
    wanted = [_is_wanted(part, method, checked) for part in method.parts]
    return tuple(
        _value(answer, number, part, sizes) if wanted[number] else None for number, part in enumerate(method.parts)
    )


def _value(answer: _Answer, number: int, part: Part, sizes: dict[str, int]) -> Value:
    shape, dtype = tuple(sizes[axis] for axis in part.dims), part.dtype
    assert dtype is not None, f"{part.name} of {answer.name} has no type of its own"
    compute = partial(answer.tensor, number, shape, dtype)
    return _Made(shape, dtype, compute, 0 if number else answer.work, is_long=answer.is_long)


def _is_wanted(part: Part, method: Method, arguments: Sequence[Argument]) -> bool:
    """One that may be absent comes if the parameter says so that is called "with_" and its name."""
    switch = f"with_{part.name}"
    return not part.optional or bool(dict(zip(method.argument_names, arguments, strict=True)).get(switch, True))


def _sizes(run: CompletedRun) -> dict[str, int]:
    info, n_pos = run.model.description.info, run.tokens.shape[1]
    return {"head": info.n_heads, "layer": info.n_layers, **dict.fromkeys(_POSITIONS, n_pos)}


def _sizes_of(run: CompletedRun, arguments: Sequence[Any]) -> Sizes:
    """All analyses are of one row, which is their first argument."""
    model = run.model.description
    saes = {sae.name: sae.d_sae * (sae.d_in + sae.d_out) for sae in model.saes}
    return Sizes(model.info, _n_tokens(run, arguments[0]) or run.tokens.shape[1], saes)


def _checked(run: CompletedRun, method: Method, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """With indices counted from 0.

    Raises:
        IndexOutOfRangeError: one that the run does not have.
    """
    info, (batch, n_pos) = run.model.description.info, run.tokens.shape
    sizes = {"batch": batch, "layer": info.n_layers, "head": info.n_heads, "pos": n_pos}
    found: dict[str, int | None] = {}
    for name, axis, index in zip(method.arguments, method.axes, arguments, strict=False):
        end = _n_tokens(run, found.get("batch_i")) if axis == "pos" and index is not None else None
        end = end if index is not None and integer(name, index) < 0 else None
        is_place = index is not None and axis in sizes  # tokens are none: the analysis looks at them
        found[name] = checked_index(name, index, sizes[axis], end) if is_place else index
    return (*found.values(), *arguments[len(method.arguments) :])


def _n_tokens(run: CompletedRun, row: int | None) -> int | None:
    return None if run.mask is None or row is None else int(run.mask[row].sum())
