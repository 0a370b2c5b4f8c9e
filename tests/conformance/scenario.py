"""Scenarios: calls of a client and what they must answer, played on a stage."""

from __future__ import annotations

import base64
import json
from collections.abc import Container, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from conformance import analyses, lies
from conformance.driver import Driver
from conformance.edits import SWEPT, Ran, names_in, swept
from conformance.expected import TORCH_BY_NAME, Fields, findings, tensor_findings
from conformance.stage import MODELS, Stage, demo_model
from support.servers.engines import SOON
from transparent_llm import TransparentLlm
from transparent_llm.analysis.analyses import ANALYSES
from transparent_llm.errors import BusyError
from transparent_llm.run_input import RunInput
from transparent_llm.wire import requests
from transparent_llm.wire.methods import METHODS, ROWS, RUN_KEY_HEADER

FOLDER = Path(__file__).parent / "scenarios"
DIMS = {**{name: method.dims for name, method in METHODS.items() if method.dims}, "mask": ("batch", "pos")}


@dataclass(frozen=True)
class Scenario:
    """One file."""

    name: str
    about: str
    steps: list[Fields]
    server: str = "main"
    not_for: dict[str, str] = field(default_factory=dict)
    """Clients that cannot do it by their nature, with the reason."""


def scenarios(folder: Path = FOLDER) -> list[Scenario]:
    """All of them, in the order of their names."""
    return [
        Scenario(path.stem, **json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
    ]


class Play:
    """One scenario by one client."""

    def __init__(self, driver: Driver, stage: Stage, scenario: Scenario) -> None:
        self._driver, self._stage, self._scenario = driver, stage, scenario
        self._server = scenario.server
        self._models: dict[str, str] = {}
        self._ran: dict[str, Ran] = {}
        self._run_ids: dict[str, str] = {}
        self._local: dict[tuple[str, str, Ran | None], TransparentLlm] = {}
        self._heard = self._carried = self._interruptions = 0

    def findings(self) -> Iterator[str]:
        """What was not as it must be; nothing, if the client passes."""
        self._lead_to(self._server)
        self._mark()
        for number, step in enumerate(self._scenario.steps, 1):
            what = step.get("method") or step.get("op") or step.get("runner")
            for finding in self._played(step):
                yield f"step {number} ({what}): {finding}"
        self._stage.gate.open()
        self._stage.ears.refusals = []
        for llm in self._models:
            if error := self._driver.ask("close", llm=llm).get("error"):
                yield f"{llm} could not be closed: {error}"

    def _played(self, step: Fields) -> Iterator[str]:
        if "runner" in step:
            arguments = {key: value for key, value in step.items() if key != "runner"}
            yield from getattr(self, f"_{step['runner']}")(**arguments) or ()
            return
        asked = {key: value for key, value in step.items() if key not in ("op", "expect")}
        if step["op"] == "connect":
            asked = self._connecting(step)
        answer = self._driver.ask(step["op"], **asked)
        yield from findings(answer, step.get("expect", {}))
        if "error" not in answer and "error" not in step.get("expect", {}):
            yield from self._compared(step, answer["ok"])

    def _connecting(self, step: Fields) -> Fields:
        """With what the stage knows: the address, and $names of what gives access."""
        options = {name: self._filled_in(value) for name, value in step.get("options", {}).items()}
        self._models[step.get("llm", "main")] = options.get("model", "demo")
        target = step.get("target") or self._stage.gate.address
        return {"llm": step.get("llm", "main"), "target": target, "options": options}

    def _filled_in(self, value: Any) -> Any:
        return self._stage.access[value[1:]] if isinstance(value, str) and value.startswith("$") else value

    def _compared(self, step: Fields, got: Fields) -> Iterator[str]:
        """With the same model in this process, bit by bit."""
        llm = step.get("llm", "main")
        if step["op"] == "copy":
            self._models[step["to"]] = self._models[llm]
            if llm in self._ran:
                self._ran[step["to"]], self._run_ids[step["to"]] = self._ran[llm], self._run_ids[llm]
        if step["op"] != "call":
            return
        method, arguments = step["method"], step.get("args", [])
        if method in ("run", "run_tokens"):
            made = RunInput.of_sentences if method == "run" else RunInput.of_tokens
            given = step.get("edits", [])
            sources = tuple((name, self._ran[name]) for name in sorted(set(names_in(given))))
            self._ran[llm], self._run_ids[llm] = Ran(made(arguments[0]), json.dumps(given), sources), _run_id_of(got)
        elif method == "sweep":
            yield from self._sweep_compared(llm, step, got.get("parts", {}))
        elif method == "effects":
            wanted = [asdict(effect) for effect in self._computed(self._models[llm], self._ran[llm]).effects()]
            if got.get("value") != wanted:
                yield f"says {got.get('value')}, where the model says {wanted}"
        elif method == "fetch":
            for read, tensor in zip(arguments[0], got["tensors"], strict=True):
                wanted = self._wanted(llm, read[0], read[1:], step)
                yield from tensor_findings(tensor, wanted, dims_of(read[0], wanted))
        elif method == "fetch_parts":
            for read, came in zip(arguments[0], got["values"], strict=True):
                yield from self._parts_compared(llm, read[0], read[1:], step, came)
        elif method in ANALYSES:
            came = got.get("parts") or {method: got.get("tensor")}
            yield from self._parts_compared(llm, method, arguments, step, came)
        elif method in DIMS:
            wanted = self._wanted(llm, method, arguments, step)
            yield from tensor_findings(got.get("tensor"), wanted, dims_of(method, wanted))

    def _parts_compared(self, llm: str, method: str, arguments: list[Any], step: Fields, came: Fields) -> Iterator[str]:
        model = self._computed(self._models[llm], self._ran.get(llm))
        wanted = analyses.computed(model, method, arguments)
        if came.keys() != wanted.keys():
            yield f"has the parts {sorted(came)}, not {sorted(wanted)}"
            return
        for name, value in wanted.items():
            dims = analyses.dims_of_part(method, name)
            may_be_cast = METHODS[method].dtype is None and not METHODS[method].is_parts
            cut = _cut_and_cast(value, dims, step, may_be_cast=may_be_cast)
            yield from (f"{name}: {finding}" for finding in tensor_findings(came[name], cut, dims))

    def _sweep_compared(self, llm: str, step: Fields, came: Fields) -> Iterator[str]:
        name = self._models[llm]
        wanted = swept(self._computed(name, self._ran[llm]), step, lambda of: self._computed(name, self._ran[of]))
        for part, value in wanted.items():
            yield from (f"{part}: {finding}" for finding in tensor_findings(came.get(part), value, SWEPT[part]))

    def _wanted(self, llm: str, method: str, arguments: list[Any], step: Fields) -> torch.Tensor:
        model = self._computed(self._models[llm], self._ran.get(llm))
        return asked_for(model, {**step, "method": method, "args": arguments})

    def _computed(self, name: str, ran: Ran | None) -> Any:
        """The model of that name in this process, with this run."""
        key = (self._server, name, ran)
        if key not in self._local:
            self._local[key] = MODELS[self._server]()[name].copy()
            if ran is not None:
                ran.on(self._local[key], partial(self._computed, name))
        return self._local[key]

    # -- what the runner itself does and looks at ---------------------------------------------------------------

    def _lead_to(self, server: str) -> None:
        self._server = server
        self._stage.lead_to(server)

    def _mark(self) -> None:
        """What is looked at later counts from here."""
        gate = self._stage.gate
        self._heard, self._carried = len(self._stage.ears.calls), gate.to_client
        self._interruptions = gate.interruptions
        self._stage.ears.someone_left.clear()

    def _release(self, llms: Sequence[str] = ("main",)) -> None:
        """Make the server forget what these have run."""
        for run_id in [self._run_id(self._ran[llm]) for llm in llms]:
            self._stage.release(run_id)
        self._mark()

    def _expect_run_ids(self, llms: Sequence[str]) -> Iterator[str]:
        """Their current runs have the names that the Python client's have, which asks for the same."""
        for llm in llms:
            wanted = self._run_id(self._ran[llm])
            if self._run_ids[llm] != wanted:
                yield f"the run of {llm} is {self._run_ids[llm]}, not {wanted}"
        self._mark()

    def _run_id(self, ran: Ran) -> str:
        """The name that the server "main" gives a run; it is made there, and what it takes from."""
        twins: dict[Ran, TransparentLlm] = {source: demo_model().copy() for _, source in ran.sources}
        names = {twin: self._run_id(source) for source, twin in twins.items()}
        edits = ran.made(twins.__getitem__)
        return self._stage.run(requests.run(ran.run_input, "", edits, names.__getitem__))

    def _interrupt_after(self, bytes: int, silence_s: float = 0.0) -> None:
        """A browser drops what a page has not read when its connection breaks, so `silence_s` lets it read."""
        self._mark()
        self._stage.gate.interrupt_after(bytes, silence_s)

    def _hold_after(self, bytes: int) -> None:
        self._mark()
        self._stage.gate.hold_after(bytes)

    def _open(self) -> None:
        self._stage.gate.open()

    def _lie(self, about: str | None) -> None:
        """What servers say from now on, by its name in lies.py; nothing but the truth with None."""
        assert about is None or about in {**lies.HEADERS, **lies.ANSWERS}, about
        self._stage.ears.lie = about

    def _refuse(self, calls: int, retry_after_s: float) -> None:
        """The next calls are told that there is no room, and when to come back."""
        self._mark()
        self._stage.ears.refusals = [BusyError("no room", retry_after_s=retry_after_s)] * calls

    def _expect_interruptions(self, count: int) -> Iterator[str]:
        made = self._stage.gate.interruptions - self._interruptions
        if made != count:
            yield f"{made} interruptions were made, not {count}"

    def _expect_carried(self, at_most: int) -> Iterator[str]:
        carried = self._stage.gate.to_client - self._carried
        if carried > at_most:
            yield f"{carried} bytes came to the client, more than {at_most}"

    def _heard_since(self, names: Container[str]) -> list[tuple[str, dict[str, str]]]:
        """Calls of these RPCs since the mark, with their metadata."""
        return [call for call in self._stage.ears.calls[self._heard :] if call[0] in names]

    def _run_keys(self, names: Container[str]) -> set[str | None]:
        return {metadata.get(RUN_KEY_HEADER) for _, metadata in self._heard_since(names)}

    def _expect_calls(self, names: list[str]) -> Iterator[str]:
        heard = [name for name, _ in self._heard_since(METHOD_RPCS)]
        if heard != names:
            yield f"the server heard {heard}, not {names}"

    def _expect_left(self) -> Iterator[str]:
        """A stream was told to end, so that the server need not go on."""
        if not self._stage.ears.someone_left.wait(SOON):
            yield "the server was not told that the client left"

    def _expect_one_run_key(self) -> Iterator[str]:
        """The run and all reads of it since the mark have the same one."""
        keys = self._run_keys(OF_RUN)
        if len(keys) != 1 or None in keys:
            yield f"a run and its reads had the run keys {keys}"

    def _expect_run_keys(self, keys: list[str]) -> Iterator[str]:
        """These, on the calls of Run since the mark."""
        heard = [metadata.get(RUN_KEY_HEADER) for _, metadata in self._heard_since({"Run"})]
        if heard != keys:
            yield f"runs had the run keys {heard}, not {keys}"


def _run_id_of(got: Fields) -> str:
    value = got.get("value")
    return str(value.get("run_id")) if isinstance(value, dict) else ""


METHOD_RPCS = {method.rpc for method in METHODS.values()} | {"Fetch", "ReleaseRun"}
OF_RUN = {method.rpc for method in METHODS.values() if method.of_run} | {"Run", "Fetch", "ReleaseRun"}


def dims_of(method: str, value: torch.Tensor) -> tuple[str, ...]:
    """Names of a value's axes; one that is asked of several vectors at once has an axis more."""
    return (ROWS, *DIMS[method]) if value.ndim == len(DIMS[method]) + 1 else DIMS[method]


def asked_for(llm: TransparentLlm, step: Fields) -> torch.Tensor:
    """What a call of a method answers, cut and cast as the call says."""
    method = step["method"]
    value: torch.Tensor = getattr(llm, method)(*(_argument(argument) for argument in step.get("args", [])))
    integers = method == "mask" or METHODS[method].integers
    return _cut_and_cast(value, dims_of(method, value), step, may_be_cast=not integers)


def _cut_and_cast(value: torch.Tensor, dims: tuple[str, ...], step: Fields, *, may_be_cast: bool) -> torch.Tensor:
    slices = step.get("slices", {})
    value = value[tuple(slice(*slices.get(axis, [None])) for axis in dims)]
    return value.to(TORCH_BY_NAME[step["dtype"]]) if "dtype" in step and may_be_cast else value


def _argument(value: Any) -> Any:
    """A tensor, or the argument as it is."""
    if not isinstance(value, dict):
        return value
    flat = torch.frombuffer(bytearray(base64.b64decode(value["data"])), dtype=TORCH_BY_NAME[value["dtype"]])
    return flat.reshape(value["shape"])
