"""Hooks on a plain model's own modules: where a tensor that a forward pass computes is taken from, and kept."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch.utils.hooks import RemovableHandle

_Key = TypeVar("_Key")

Pick = Callable[[Any], "torch.Tensor | None"]
"""The tensor in what a module is given or gives; None: it is not in there."""


class Site(NamedTuple):
    """A tensor of a forward pass."""

    layer: int
    field: str
    """Of `LayerCapture`, or "residual_out"."""


@dataclass(frozen=True)
class Tap:
    """Where one tensor passes in a plain model."""

    module: torch.nn.Module
    pick: Pick
    at_input: bool = False
    """Of the module's first argument; else of what it returns."""


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
    def keeping(self) -> Iterator[Mapping[_Key, torch.Tensor]]:
        """Within this block what passes in this thread is kept, in the mapping that it yields."""
        kept: dict[_Key, torch.Tensor] = {}
        self._of_thread.kept = kept
        try:
            yield kept
        finally:
            self._of_thread.kept = None

    def remove(self) -> None:
        """Take them off the model."""
        for handle in self._handles:
            handle.remove()

    def _at_input(self, taps: Sequence[tuple[_Key, Tap]]) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:  # noqa: ARG001
            kept = self._of_thread.kept
            if kept is not None:
                _keep(kept, taps, args[0] if args else kwargs.get("hidden_states"))

        return hook

    def _at_output(self, taps: Sequence[tuple[_Key, Tap]]) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...], output: Any) -> None:  # noqa: ARG001
            kept = self._of_thread.kept
            if kept is not None:
                _keep(kept, taps, output)

        return hook


class _OfThread(threading.local):
    kept: dict[Any, torch.Tensor] | None = None


def _keep(kept: dict[_Key, torch.Tensor], taps: Sequence[tuple[_Key, Tap]], passing: Any) -> None:
    for key, tap in taps:
        tensor = tap.pick(passing)
        if tensor is not None:
            kept[key] = tensor
