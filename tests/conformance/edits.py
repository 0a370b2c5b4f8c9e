"""Edits as scenarios write them (README.md), as edits of the library."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from transparent_llm import TransparentLlm, interventions
from transparent_llm.analysis.metrics import Metric
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.interventions import Intervention, Site, Vector
from transparent_llm.interventions.vector import Unembedding
from transparent_llm.run_input import RunInput
from transparent_llm.wire import dtypes

Fields = dict[str, Any]
ObjectOf = Callable[[str], TransparentLlm]
"""The object with this name, whose current run an edit takes from."""

_TORCH_BY_NAME = {dtypes.name(dtype): dtype for dtype in dtypes.WIRE_BY_TORCH}


def edits_of(given: Sequence[Fields], object_of: ObjectOf) -> list[Intervention]:
    """Those of a step."""
    return [_edit_of(dict(edit), object_of) for edit in given]


def swept(llm: Any, step: Fields, object_of: ObjectOf) -> dict[str, torch.Tensor]:
    """What a sweep gives."""
    cells = tuple(_cell_of(**cell) for cell in step["cells"])
    metrics = tuple(metric_of(**metric, object_of=object_of) for metric in step["metrics"])
    templates, before = (tuple(edits_of(step.get(name, ()), object_of)) for name in ("templates", "before"))
    parts = list(llm.sweep(Sweep(templates, cells, metrics, tuple(step.get("rows", ())), before)))
    order = torch.tensor([cell for part in parts for cell in part.cells]).argsort()
    return {"baselines": parts[0].baselines, "values": torch.cat([part.values for part in parts])[order]}


def names_in(given: Any) -> Iterator[str]:
    """Of the objects that they take from."""
    if isinstance(given, dict):
        if "source" in given:
            yield given["source"]
        given = list(given.values())
    for part in given if isinstance(given, list) else ():
        yield from names_in(part)


SWEPT = {"baselines": ("metric", "row"), "values": ("cell", "metric", "row")}
"""Names of the axes of what a sweep gives."""


@dataclass(frozen=True)
class Ran:
    """What an object has run."""

    run_input: RunInput
    edits: str = "[]"
    """In JSON."""

    sources: tuple[tuple[str, Ran], ...] = ()
    """What those objects had run then."""

    def on(self, llm: TransparentLlm, twin_of: Callable[[Ran], TransparentLlm]) -> None:
        """Run it on an object."""
        edits = self.made(twin_of)
        kwargs: Any = {"edits": edits} if edits else {}
        if self.run_input.sentences is not None:
            llm.run(list(self.run_input.sentences), **kwargs)
        else:
            llm.run_tokens([list(row) for row in self.run_input.token_ids or ()], **kwargs)

    def made(self, twin_of: Callable[[Ran], TransparentLlm]) -> list[Intervention]:
        """Its edits, which take from objects that have run the same as the sources."""
        sources = dict(self.sources)
        return edits_of(json.loads(self.edits), lambda name: twin_of(sources[name]))


def _edit_of(edit: Fields, object_of: ObjectOf) -> Intervention:
    make = interventions.set_to if edit["op"] == "set" else getattr(interventions, edit["op"])
    site = site_of(edit.pop("site"))
    del edit["op"]
    for name, value in edit.items():
        if name == "source":
            edit[name] = object_of(value)
        elif name in ("vector", "origin", "target"):
            edit[name] = _vector_of(value, object_of)
    for name, none in (("least", -torch.inf), ("most", torch.inf)):
        if name in edit and edit[name] is None:
            edit[name] = none
    made: Intervention = make(site, **edit)
    return made


def _cell_of(
    *, neurons: Sequence[int] | None = None, positions: Sequence[int] | None = None, **coordinates: int
) -> Cell:
    lists = {"neurons": neurons, "positions": positions}
    return Cell(**coordinates, **{name: tuple(given) for name, given in lists.items() if given is not None})


def metric_of(*, object_of: ObjectOf, **metric: Any) -> Metric:
    """That of a sweep, or of gradients."""
    if "site" in metric:
        metric["site"], metric["direction"] = site_of(metric["site"]), _vector_of(metric["direction"], object_of)
    if "run" in metric:
        metric["run"] = object_of(metric["run"])
    return Metric(**{name: tuple(given) if isinstance(given, list) else given for name, given in metric.items()})


def site_of(given: Sequence[Any]) -> Site:
    """From its name and arguments."""
    name, *arguments = given
    site: Site = getattr(interventions, name)(*arguments)
    return site


def _vector_of(given: Fields, object_of: ObjectOf) -> Vector:
    ((kind, value),) = given.items()
    if kind == "literal":
        return interventions.literal(_tensor_of(value))
    if kind == "value_of":
        source = object_of(value["source"])
        return interventions.value_of(site_of(value["site"]), source, row=value["row"], pos=value["pos"])
    if kind == "difference":
        minuend, subtrahend = (_vector_of(part, object_of) for part in value)
        return minuend - subtrahend
    if kind == "unembedding":
        return Unembedding(value)
    if kind == "sae_feature":
        return interventions.sae_feature(*value)
    assert kind == "neuron_output", kind
    return interventions.neuron_output(*value)


def _tensor_of(given: Any) -> torch.Tensor:
    """A tensor, or numbers in single precision."""
    if not isinstance(given, dict):
        return torch.tensor(given, dtype=torch.float32)
    data, dtype = bytearray(base64.b64decode(given["data"])), _TORCH_BY_NAME[given["dtype"]]
    flat = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
    return flat.reshape(given["shape"])
