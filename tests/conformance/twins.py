"""The same models in the runner's process, with the same runs, whose values clients' answers are compared with."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from conformance import analyses
from conformance.comparisons import compared, comparison_findings
from conformance.differentiations import differentiated
from conformance.edits import SWEPT, Ran, names_in, swept
from conformance.expected import TORCH_BY_NAME, Fields, tensor_findings
from conformance.generations import generated, step_findings, steps_written
from conformance.stage import MODELS
from transparent_llm import TransparentLlm
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.analysis.circuits import CIRCUITS
from transparent_llm.run_input import RunInput
from transparent_llm.wire import dtypes
from transparent_llm.wire.methods import METHODS, ROWS

DIMS = {**{name: method.dims for name, method in METHODS.items() if method.dims}, "mask": ("batch", "pos")}


class Twins:
    """Of the client objects of one scenario."""

    def __init__(self, server: str) -> None:
        self.server = server
        """The one that clients reach."""

        self.models: dict[str, str] = {}
        self.ran: dict[str, Ran] = {}
        self.run_ids: dict[str, str] = {}
        """By the names of the objects: their models, what they have run, and the names of their runs."""

        self._local: dict[tuple[str, str, Ran | None], TransparentLlm] = {}

    def findings(self, step: Fields, got: Fields) -> Iterator[str]:
        """What differs of what a client answered to a step that went well."""
        llm = step.get("llm", "main")
        if step["op"] == "copy":
            self.models[step["to"]] = self.models[llm]
            if llm in self.ran:
                self.ran[step["to"]], self.run_ids[step["to"]] = self.ran[llm], self.run_ids[llm]
        if step["op"] != "call":
            return
        method, arguments = step["method"], step.get("args", [])
        if method in ("run", "run_tokens"):
            made = RunInput.of_sentences if method == "run" else RunInput.of_tokens
            self._has_run(llm, made(arguments[0]), step, got)
        elif method == "generate":
            yield from self._generation_findings(llm, step, got)
        elif method in ("sweep", "gradients"):
            yield from self._asked_findings(llm, step, got.get("parts", {}))
        elif method == "compare":
            yield from comparison_findings(got.get("value"), compared(self._twin(llm), step, self._twin), 1e-5)
        elif method == "effects":
            effects = [asdict(effect) for effect in self._twin(llm).effects()]
            if got.get("value") != effects:
                yield f"says {got.get('value')}, where the model says {effects}"
        elif method == "plan":
            yield from self._plan_findings(llm, step, got.get("value"))
        elif method == "fetch":
            for read, tensor in zip(arguments[0], got["tensors"], strict=True):
                wanted = self._wanted(llm, read[0], read[1:], step)
                yield from tensor_findings(tensor, wanted, dims_of(read[0], wanted))
        elif method == "fetch_parts":
            for read, came in zip(arguments[0], got["values"], strict=True):
                yield from self._parts_findings(llm, read[0], read[1:], step, came)
        elif method in ANALYSES or method in CIRCUITS:
            came = got.get("parts") or {method: got.get("tensor")}
            yield from self._parts_findings(llm, method, arguments, step, came)
        elif method in DIMS:
            wanted = self._wanted(llm, method, arguments, step)
            yield from tensor_findings(got.get("tensor"), wanted, dims_of(method, wanted))

    def computed(self, name: str, ran: Ran | None) -> Any:
        """The model of that name in this process, with this run."""
        key = (self.server, name, ran)
        if key not in self._local:
            self._local[key] = MODELS[self.server]()[name].copy()
            if ran is not None:
                ran.on(self._local[key], partial(self.computed, name))
        return self._local[key]

    def _twin(self, llm: str) -> Any:
        """Of an object with that name."""
        return self.computed(self.models[llm], self.ran.get(llm))

    def _has_run(self, llm: str, run_input: RunInput, step: Fields, got: Fields) -> None:
        given = step.get("edits", [])
        sources = tuple((name, self.ran[name]) for name in sorted(set(names_in(given))))
        self.ran[llm], self.run_ids[llm] = Ran(run_input, json.dumps(given), sources), _run_id_of(got)

    def _generation_findings(self, llm: str, step: Fields, got: Fields) -> Iterator[str]:
        """Also makes the run of what was generated the current one."""
        twin = self.computed(self.models[llm], None).copy()
        wanted = steps_written(generated(twin, step, self._twin))
        value = got.get("value")
        yield from step_findings(value.get("steps") if isinstance(value, dict) else None, wanted)
        rows = [row[mask].tolist() for row, mask in zip(twin.tokens(), twin.mask(), strict=True)]
        self._has_run(llm, RunInput.of_tokens(rows), step, got)

    def _asked_findings(self, llm: str, step: Fields, came: Fields) -> Iterator[str]:
        """Of a sweep, or of gradients."""
        twin = self._twin(llm)
        if step["method"] == "sweep":
            wanted = {name: (value, SWEPT[name]) for name, value in swept(twin, step, self._twin).items()}
        else:
            wanted = differentiated(twin, step, self._twin)
        if came.keys() != wanted.keys():
            yield f"has the parts {sorted(came)}, not {sorted(wanted)}"
            return
        for name, (value, dims) in wanted.items():
            yield from (f"{name}: {finding}" for finding in tensor_findings(came[name], value, dims))

    def _plan_findings(self, llm: str, step: Fields, got: Any) -> Iterator[str]:
        """What values are is known from values; what would travel of them stands in the scenario."""
        reads = step["args"][0]
        if not isinstance(got, list) or len(got) != len(reads):
            yield f"plans {got}, not {len(reads)} reads"
            return
        for (name, *given), planned in zip(reads, got, strict=True):
            parts = self._parts(llm, name, given, step)
            _, first, dims = parts[0]
            wanted = {
                "name": name,
                "shape": list(first.shape),
                "dims": list(dims),
                "dtype": dtypes.name(first.dtype),
                "bytes": sum(value.nbytes for _, value, _ in parts),
            }
            if {key: planned.get(key) for key in wanted} != wanted:
                yield f"plans {planned}, where the model has {wanted}"

    def _parts_findings(self, llm: str, method: str, given: list[Any], step: Fields, came: Fields) -> Iterator[str]:
        wanted = self._parts(llm, method, given, step)
        if came.keys() != {name for name, _, _ in wanted}:
            yield f"has the parts {sorted(came)}, not {sorted(name for name, _, _ in wanted)}"
            return
        for name, value, dims in wanted:
            yield from (f"{name}: {finding}" for finding in tensor_findings(came[name], value, dims))

    def _parts(
        self, llm: str, method: str, given: list[Any], step: Fields
    ) -> list[tuple[str, torch.Tensor, tuple[str, ...]]]:
        """Each tensor of a value, or the value, cut and cast: its name, itself and the names of its axes."""
        found = []
        for name, value in analyses.computed(self._twin(llm), method, given).items():
            dims = analyses.dims_of_part(method, name)
            may_be_cast = METHODS[method].dtype is None and not METHODS[method].is_parts
            found.append((name, cut_and_cast(value, dims, step, may_be_cast=may_be_cast), dims))
        return found

    def _wanted(self, llm: str, method: str, arguments: list[Any], step: Fields) -> torch.Tensor:
        return asked_for(self._twin(llm), {**step, "method": method, "args": arguments})


def dims_of(method: str, value: torch.Tensor) -> tuple[str, ...]:
    """Names of a value's axes; one that is asked of several vectors at once has an axis more."""
    return (ROWS, *DIMS[method]) if value.ndim == len(DIMS[method]) + 1 else DIMS[method]


def asked_for(llm: TransparentLlm, step: Fields) -> torch.Tensor:
    """What a call of a method answers, cut and cast as the call says."""
    method = step["method"]
    value: torch.Tensor = getattr(llm, method)(*(_argument(argument) for argument in step.get("args", [])))
    integers = method == "mask" or METHODS[method].integers
    return cut_and_cast(value, dims_of(method, value), step, may_be_cast=not integers)


def cut_and_cast(value: torch.Tensor, dims: tuple[str, ...], step: Fields, *, may_be_cast: bool) -> torch.Tensor:
    """The parts of the axes that a step asks for, in the type that it asks for."""
    slices = step.get("slices", {})
    value = value[tuple(slice(*slices.get(axis, [None])) for axis in dims)]
    return value.to(TORCH_BY_NAME[step["dtype"]]) if "dtype" in step and may_be_cast else value


def _run_id_of(got: Fields) -> str:
    value = got.get("value")
    return str(value.get("run_id")) if isinstance(value, dict) else ""


def _argument(value: Any) -> Any:
    """A tensor, or the argument as it is."""
    if not isinstance(value, dict):
        return value
    flat = torch.frombuffer(bytearray(base64.b64decode(value["data"])), dtype=TORCH_BY_NAME[value["dtype"]])
    return flat.reshape(value["shape"])
