"""Hooks on a plain model's own modules: where a tensor that a forward pass computes is taken from, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.hooks import RemovableHandle

_Key = TypeVar("_Key")

Pick = Callable[[Any], "torch.Tensor | None"]
"""The tensor in what a module is given or gives; None: it is not in there."""

Put = Callable[[Any, torch.Tensor], Any]
"""What passes, with another tensor in the place of that one."""

Rewrite = Callable[[torch.Tensor, dict[Any, torch.Tensor]], torch.Tensor]
"""What passes on instead of a tensor: the same object if it stays as it is. It is given what is kept so far, and keeps
there what is to be read afterwards."""


class Site(NamedTuple):
    """A tensor of a forward pass."""

    layer: int
    field: str
    """Of `LayerCapture`, or "residual_out"."""


def replaced(passing: Any, tensor: torch.Tensor) -> Any:
    """A tensor in the place of another, or of the first of several."""
    if isinstance(passing, torch.Tensor):
        return tensor
    return type(passing)([tensor, *passing[1:]])


@dataclass(frozen=True)
class Tap:
    """Where one tensor passes in a plain model."""

    module: torch.nn.Module
    pick: Pick
    at_input: bool = False
    """Of the module's first argument; else of what it returns."""

    put: Put = replaced
    is_optional: bool = False
    """Looked at only where it is rewritten."""


class Taps(Generic[_Key]):
    """Of one model, put on once. They do nothing but keep tensors, and that only in a thread within `keeping`."""

    def __init__(self, taps: Iterable[tuple[_Key, Tap]]) -> None:
        self._of_thread = _OfThread()
        self._handles: list[RemovableHandle] = []
        inputs: dict[torch.nn.Module, list[tuple[_Key, Tap]]] = {}
        outputs: dict[torch.nn.Module, list[tuple[_Key, Tap]]] = {}
        for key, tap in taps:
            (inputs if tap.at_input else outputs).setdefault(tap.module, []).append((key, tap))
        for module, found in inputs.items():
            self._handles.append(module.register_forward_pre_hook(self._at_input(found), with_kwargs=True))
        for module, found in outputs.items():
            self._handles.append(module.register_forward_hook(self._at_output(found)))

    @contextmanager
    def keeping(
        self, rewrites: Mapping[_Key, Rewrite] | None = None, wanted: Collection[_Key] | None = None
    ) -> Iterator[dict[_Key, torch.Tensor]]:
        """Within this block what passes in this thread is kept, in the mapping that it yields, and rewritten. With
        `wanted`, of what is not rewritten that alone is looked at."""
        kept: dict[_Key, torch.Tensor] = {}
        self._of_thread.pass_ = _Pass(kept, rewrites or {}, wanted)
        try:
            yield kept
        finally:
            self._of_thread.pass_ = None

    def remove(self) -> None:
        """Take them off the model."""
        for handle in self._handles:
            handle.remove()

    def _at_input(self, taps: Sequence[tuple[_Key, Tap]]) -> Callable[..., object]:
        needs_edits = all(tap.is_optional for _, tap in taps)

        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> object:  # noqa: ARG001
            under_way = self._of_thread.pass_
            if under_way is None or (needs_edits and not under_way.rewrites):
                return None
            given = args[0] if args else kwargs.get("hidden_states")
            passed = under_way.through(taps, given)
            if passed is given:
                return None
            return ((passed, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": passed})

        return hook

    def _at_output(self, taps: Sequence[tuple[_Key, Tap]]) -> Callable[..., object]:
        needs_edits = all(tap.is_optional for _, tap in taps)

        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> object:  # noqa: ARG001
            under_way = self._of_thread.pass_
            if under_way is None or (needs_edits and not under_way.rewrites):
                return None
            passed = under_way.through(taps, output)
            return None if passed is output else passed

        return hook


@dataclass(frozen=True)
class _Pass:
    """A forward pass that is under way."""

    kept: dict[Any, torch.Tensor]
    rewrites: Mapping[Any, Rewrite]
    wanted: Collection[Any] | None

    def through(self, taps: Sequence[tuple[Any, Tap]], passing: Any) -> Any:
        """Keep, and rewrite, what these taps see: what passes on."""
        for key, tap in taps:
            rewrite = self.rewrites.get(key) if self.rewrites else None
            if rewrite is None and (tap.is_optional or not (self.wanted is None or key in self.wanted)):
                continue
            tensor = tap.pick(passing)
            if tensor is None:
                continue
            self.kept[key] = tensor
            if rewrite is not None:
                passed = rewrite(tensor, self.kept)
                passing = passing if passed is tensor else tap.put(passing, passed)
        return passing


class _OfThread(threading.local):
    pass_: _Pass | None = None
