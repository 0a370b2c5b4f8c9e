"""One value of a run, as it is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import cast

import torch

from transparent_llm.client.current_run import CurrentRun
from transparent_llm.client.read_ahead import Indices
from transparent_llm.client.reads import Arguments, Read, checked
from transparent_llm.runtime.indexing import counted
from transparent_llm.selection import Selection
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import METHODS
from transparent_llm.wire.requests import Item


def form(name: str, selection: Selection) -> Form:
    """What a selection asks for of a method's value: no type of integers.

    Raises:
        InvalidRequestError: a part of an axis that the value does not have.
    """
    axes = tuple(selection.cut(name, METHODS[name].value_dims).items())
    return Form(axes, None if METHODS[name].integers else selection.dtype)


@dataclass(frozen=True)
class Ask:
    """Hashable, and equal to another one that means the same value; naming it makes no call."""

    run: CurrentRun
    read: Read
    selection: Selection
    """What is asked for of all values."""

    @classmethod
    def of(cls, run: CurrentRun, name: str, arguments: Arguments, selection: Selection) -> Ask:
        """From what a caller wrote. A negative index becomes the one that it stands for, as a server has it; so both
        are one value here. For some of them the run's model is asked for once.

        Raises:
            InvalidRequestError: there is no such method, or it has fewer arguments, or one that is not what it can be;
                or the selection has an axis that its value does not have.
        """
        indices, parameters = checked(name, arguments)
        if any(index is not None and index < 0 for index in indices):
            run.find_model()
            indices = _counted(run, name, indices)
        ask = cls(run, (name, (*indices, *parameters)), selection)
        _ = ask._form  # refuses the selection where the caller reads
        return ask

    @property
    def name(self) -> str:
        """The name of the method, such as `residual_in`."""
        return self.read[0]

    @property
    def indices(self) -> Indices:
        """The indices among the arguments of the method; None for those that were left out."""
        return cast(Indices, self.read[1][: len(METHODS[self.name].arguments)])

    @property
    def lengths(self) -> Mapping[str, int]:
        """The axes of the value whose length its parameters say."""
        return METHODS[self.name].lengths(self.read[1])

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
        return tuple(sizes.get(axis) for axis in METHODS[self.name].axes)

    def at(self, indices: Indices) -> Ask:
        """The same of another place."""
        parameters = self.read[1][len(indices) :]
        return Ask(self.run, (self.name, (*indices, *parameters)), self.selection)

    def item(self, *, factored: bool = False) -> Item:
        """For a request.

        Args:
            factored: The factors will do. They come in their own types, and those that weights belong to whole, as
                they are small: what is asked for is cut out here.
        """
        if not factored:
            return Item(*self.read, self._form)
        return Item(*self.read, Form(() if METHODS[self.name].weights else self._form.axes, factored=True))


def _counted(run: CurrentRun, name: str, indices: Indices) -> Indices:
    """The same indices from the start; those outside, tokens, and those of an axis whose size is not known, stay."""
    (batch, n_pos), info, method = run.shape, run.model.info, METHODS[name]
    named = dict(zip(method.arguments, indices, strict=True))
    row = named.get("batch_i")
    row = None if row is None else counted(row, batch)
    sizes = {"batch": batch, "pos": n_pos, "layer": info.n_layers, "head": info.n_heads}
    if row is not None and 0 <= row < batch:
        sizes["pos"] = run.n_tokens(row)
    axes = zip(method.axes, indices, strict=True)
    return tuple(index if index is None or axis not in sizes else counted(index, sizes[axis]) for axis, index in axes)
