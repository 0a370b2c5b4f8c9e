"""Results that know what their axes are: tensors with axis names, coordinates and token strings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from transparent_llm.analysis.display.grid import grid_html
from transparent_llm.analysis.display.markup import page, require_as_many
from transparent_llm.analysis.whole_file import replacing
from transparent_llm.errors import InvalidRequestError
from transparent_llm.extras import missing
from transparent_llm.quoting import quoted, shown
from transparent_llm.table import Table, Tabular

if TYPE_CHECKING:
    import pandas
    import xarray


@dataclass(frozen=True)
class Axis:
    """What the places of an axis are."""

    name: str
    """Such as "layer", "pos", "head"."""

    coordinates: Sequence[int | str]
    """A number or a name for each place."""

    labels: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """What else is known of each place, under a name: {"token": [" Paris", ...]}."""

    def __post_init__(self) -> None:
        for name, labels in self.labels.items():
            require_as_many(f"{self.name} label {name!r}", labels, len(self))

    def __len__(self) -> int:
        return len(self.coordinates)

    @property
    def words(self) -> list[str]:
        """For people, one for each place: its coordinate and the first of its labels."""
        first = next(iter(self.labels.values()), None)
        if first is None:
            return [str(coordinate) for coordinate in self.coordinates]
        return [f"{coordinate} {label}" for coordinate, label in zip(self.coordinates, first, strict=True)]


@dataclass(frozen=True)
class OnAxes:
    """A tensor and what its axes are."""

    tensor: torch.Tensor
    axes: tuple[str, ...]
    """The name of each of its axes."""


@dataclass(frozen=True, repr=False, eq=False)
class Labelled(Tabular):
    """Named tensors over common axes. `print` tells what they are, a notebook shows a picture where there is one.

    A kind of result derives from it and overrides `picture`.

    Raises:
        InvalidRequestError: a tensor has an axis that is not described, or of another length.
    """

    title: str
    """What it is, and of which sentence."""

    axes: tuple[Axis, ...]
    """In any order; every tensor has some of them."""

    tensors: Mapping[str, OnAxes]
    """By name; the first is what pictures show."""

    def __post_init__(self) -> None:
        sizes = {axis.name: len(axis) for axis in self.axes}
        for name, labelled in self.tensors.items():
            described = [sizes.get(axis) for axis in labelled.axes]
            if described != list(labelled.tensor.shape) or len({*labelled.axes}) < len(labelled.axes):
                said = ", ".join(f"{axis} ({sizes.get(axis, 'not described')})" for axis in labelled.axes)
                raise InvalidRequestError(
                    f"{quoted(name)} has shape {list(labelled.tensor.shape)}, but its axes are {said or 'none'}"
                )

    def __getitem__(self, name: str) -> torch.Tensor:
        """The tensor of that name."""
        return self._labelled(name).tensor

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {_shape(labelled)}" for name, labelled in self.tensors.items())
        return shown(f"{type(self).__name__}({self.title!r}: {parts})", longest=300)

    def table(self) -> Table:
        """Names, axes, types and ranges of the tensors."""
        rows = [(name, _shape(one), str(one.tensor.dtype), _range(one.tensor)) for name, one in self.tensors.items()]
        return Table.of(self.title, ("tensor", "axes", "type", "values"), rows)

    def picture(self) -> str:
        """As HTML: a grid, if the first tensor has two axes; otherwise the table."""
        first = next(iter(self.tensors.items()), None)
        if first is None or len(first[1].axes) != 2:
            return self.table()._repr_html_()
        (name, labelled), (down, across) = first, (self._axis(axis) for axis in first[1].axes)
        return grid_html(
            labelled.tensor,
            title=self.title,
            rows=down.words,
            columns=across.words,
            row_axis=down.name,
            column_axis=across.name,
            value_name=name,
            upwards=down.name == "layer",
        )

    def _repr_html_(self) -> str:
        """What notebooks show."""
        return self.picture()

    def save_html(self, path: str | Path) -> Path:
        """The picture as a page of its own, which needs no network and runs no script.

        A file of that name is replaced when the new one is whole.

        Raises:
            InvalidRequestError: it cannot be written, or is something else than a regular file.
        """
        target = Path(path)
        data = page(self.title, self.picture()).encode("utf-8", "backslashreplace")
        with replacing(target) as file:
            file.write(data)
        return target

    def to_pandas(self, *names: str) -> pandas.DataFrame:
        """A row for each place: its coordinates and labels, and a column for each tensor, bfloat16 as float32.

        Those that have fewer axes are repeated along the others.

        Args:
            names: Of tensors. None: all of them.

        Raises:
            InvalidRequestError: no tensor has all the axes of the others: name those that go together.
            ImportError: pandas is not installed.
        """
        frame = _import("pandas").DataFrame
        chosen = {name: self._labelled(name) for name in names or self.tensors}
        widest = max(chosen.values(), key=lambda one: len(one.axes), default=None)
        if widest is None:
            return frame()
        apart = next((name for name, one in chosen.items() if not {*one.axes} <= {*widest.axes}), None)
        if apart is not None:
            raise InvalidRequestError(
                f"{quoted(apart)} has axes that others lack, so that they are no rows of one table: name those that "
                f"go together, of {', '.join(map(quoted, self.tensors))}"
            )
        axes, shape = [self._axis(name) for name in widest.axes], tuple(widest.tensor.shape)
        columns: dict[str, Any] = {}
        for at, axis in enumerate(axes):
            places = _along(torch.arange(len(axis)), at, shape).reshape(-1).tolist()
            for name, of_axis in ((axis.name, axis.coordinates), *axis.labels.items()):
                columns[name if name not in columns else f"{axis.name}_{name}"] = [of_axis[place] for place in places]
        for name, one in chosen.items():
            columns[name] = _numpy(_spread(one, widest.axes, shape).reshape(-1))
        return frame(columns)

    def to_xarray(self) -> xarray.Dataset:
        """All tensors with their axes as dimensions; labels are further coordinates. bfloat16 as float32.

        Raises:
            ImportError: xarray is not installed.
        """
        coordinates: dict[str, Any] = {}
        for axis in self.axes:
            coordinates[axis.name] = (axis.name, list(axis.coordinates))
            for name, labels in axis.labels.items():
                key = name if name not in coordinates else f"{axis.name}_{name}"
                coordinates[key] = (axis.name, list(labels))
        values = {name: (one.axes, _numpy(one.tensor)) for name, one in self.tensors.items()}
        dataset: xarray.Dataset = _import("xarray").Dataset(values, coords=coordinates, attrs={"title": self.title})
        return dataset

    def _axis(self, name: str) -> Axis:
        return next(axis for axis in self.axes if axis.name == name)

    def _labelled(self, name: str) -> OnAxes:
        if name not in self.tensors:
            raise InvalidRequestError(
                f"there is no tensor {quoted(name)}; there are {', '.join(map(quoted, self.tensors)) or 'none'}"
            )
        return self.tensors[name]


def _import(module: str) -> Any:
    """A library that is not installed with the client.

    Raises:
        ImportError: it is not there.
    """
    import importlib

    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ImportError(missing(f"to_{module}", "notebook", error)) from error


def _along(places: torch.Tensor, at: int, shape: tuple[int, ...]) -> torch.Tensor:
    return places.reshape([-1 if axis == at else 1 for axis in range(len(shape))]).expand(shape)


def _spread(one: OnAxes, axes: tuple[str, ...], shape: tuple[int, ...]) -> torch.Tensor:
    """With all of these axes, in their order."""
    ordered = one.tensor.permute([one.axes.index(axis) for axis in axes if axis in one.axes])
    sizes = iter(ordered.shape)
    return ordered.reshape([next(sizes) if axis in one.axes else 1 for axis in axes]).expand(shape)


def _numpy(tensor: torch.Tensor) -> Any:
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype is torch.bfloat16 else plain).numpy()


def _shape(one: OnAxes) -> str:
    return f"[{' '.join(f'{axis}={n}' for axis, n in zip(one.axes, one.tensor.shape, strict=True))}]"


def _range(tensor: torch.Tensor) -> str:
    """Its smallest and largest finite value."""
    if tensor.dtype is torch.bool or not tensor.numel():
        return ""
    finite = tensor[torch.isfinite(tensor)]
    words = f"{finite.min().item():.4g} to {finite.max().item():.4g}" if finite.numel() else "none is finite"
    return words if finite.numel() in (0, tensor.numel()) else f"{words}, {tensor.numel() - finite.numel()} not finite"
