"""What the modules of a model are made of, so that a bridge can take the model over and give it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

_HELD = ("_modules", "_parameters", "_buffers")


@dataclass(frozen=True)
class Structure:
    """Of one model: its modules, and what each of them held when this was made."""

    _parts: tuple[tuple[torch.nn.Module, dict[str, dict[str, object]]], ...]

    @classmethod
    def of(cls, model: torch.nn.Module) -> Structure:
        """As the model is now."""
        modules = tuple(model.modules())
        return cls(tuple((module, {held: dict(vars(module)[held]) for held in _HELD}) for module in modules))

    def restore(self) -> None:
        """Put every part back where it was; what came since is no part of the model any more."""
        for module, held in self._parts:
            for name, parts in held.items():
                now = vars(module)[name]
                now.clear()
                now.update(parts)


@contextmanager
def evaluating(modules: Iterable[torch.nn.Module]) -> Iterator[None]:
    """Within this block none of these modules is in training mode, in which it would drop values by chance."""
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
