"""One value of a run, as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import SupportsIndex

import torch

from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.read_ahead import Indices
from transparent_llm.client.reads import Read, integers
from transparent_llm.selection import Selection
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.requests import Item


def form(name: str, selection: Selection) -> Form:
    """What a selection asks for of a method's value: nothing of axes that it does not have, no type of integers."""
    axes = tuple(selection.of(METHODS[name].value_dims).items())
    return Form(axes, None if METHODS[name].integers else selection.dtype)


@dataclass(frozen=True)
class Ask:
    """Hashable, and equal to another one that means the same value; naming it makes no call."""

    run: CurrentRun
    read: Read
    selection: Selection
    """What is asked for of all values, also of axes that this one does not have."""

    @classmethod
    def of(cls, run: CurrentRun, name: str, indices: Sequence[SupportsIndex | None], selection: Selection) -> Ask:
        """From what a caller wrote.

        Raises:
            InvalidRequestError: there is no such method, or it has fewer arguments.
        """
        return cls(run, (name, integers(name, indices)), selection)

    @property
    def name(self) -> str:
        """The name of the method, such as `residual_in`."""
        return self.read[0]

    @property
    def indices(self) -> Indices:
        """The arguments of the method; None for those that were left out."""
        return self.read[1]

    @property
    def layer(self) -> int | None:
        """None: the method takes none, or it was left out."""
        arguments = METHODS[self.name].arguments
        return self.indices[arguments.index("layer")] if "layer" in arguments else None

    @property
    def key(self) -> Ask:
        """What it is kept as: `residual_out` of a layer is `residual_in` of the next, where there is one."""
        if self.name == "residual_out":
            layer = self.layer
            if layer is not None and 0 <= layer < self.run.model.info.n_layers - 1:
                return Ask(self.run, ("residual_in", (layer + 1,)), self.selection)
        return self

    @cached_property
    def _form(self) -> Form:
        return form(self.name, self.selection)

    @cached_property
    def axes(self) -> Mapping[str, slice]:
        """The parts of the value's axes that are asked for."""
        return dict(self._form.axes)

    @property
    def dtype(self) -> torch.dtype | None:
        """That the value shall have; None: the one that the server holds it in."""
        return self._form.dtype

    @property
    def sizes(self) -> Indices:
        """Of the axes that its indices go along."""
        (batch, n_pos), info = self.run.shape, self.run.model.info
        sizes = {"batch": batch, "pos": n_pos, "layer": info.n_layers, "head": info.n_heads}
        return tuple(sizes[axis] for axis in METHODS[self.name].axes)

    def at(self, indices: Indices) -> Ask:
        """The same of another place."""
        return Ask(self.run, (self.name, indices), self.selection)

    def item(self, *, factored: bool = False) -> Item:
        """For a request.

        Args:
            factored: The factors will do. They come in their own types, and those that weights belong to whole, as
                they are small: what is asked for is cut out here.
        """
        if not factored:
            return Item(*self.read, self._form)
        return Item(*self.read, Form(() if METHODS[self.name].weights else self._form.axes, factored=True))
