"""Scenarios: calls of a client and what they must answer, played on a stage."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from conformance.driver import Driver
from conformance.expected import Fields, findings
from conformance.runner import Runner
from conformance.stage import Stage
from conformance.twins import Twins

FOLDER = Path(__file__).parent / "scenarios"


@dataclass(frozen=True)
class Scenario:
    """One file."""

    name: str
    about: str
    steps: list[Fields]
    server: str = "main"
    not_for: dict[str, str] = field(default_factory=dict)
    """Clients that cannot do it by their nature, with the reason."""

    needs: str = ""
    """What a client may not have yet: see `Client.lacks`."""


def scenarios(folder: Path = FOLDER) -> list[Scenario]:
    """All of them, in the order of their names."""
    return [
        Scenario(path.stem, **json.loads(path.read_text(encoding="utf-8"))) for path in sorted(folder.glob("*.json"))
    ]


class Play:
    """One scenario by one client."""

    def __init__(self, driver: Driver, stage: Stage, scenario: Scenario) -> None:
        self._driver, self._stage, self._scenario = driver, stage, scenario
        self._twins = Twins(scenario.server)
        self._runner = Runner(stage, self._twins)

    def findings(self) -> Iterator[str]:
        """What was not as it must be; nothing, if the client passes."""
        self._runner.lead_to(self._scenario.server)
        self._runner.mark()
        for number, step in enumerate(self._scenario.steps, 1):
            what = step.get("method") or step.get("op") or step.get("runner")
            for finding in self._played(step):
                yield f"step {number} ({what}): {finding}"
        self._runner.close()
        for llm in self._twins.models:
            if error := self._driver.ask("close", llm=llm).get("error"):
                yield f"{llm} could not be closed: {error}"

    def _played(self, step: Fields) -> Iterator[str]:
        if "runner" in step:
            yield from self._runner.play(step)
            return
        asked = {key: value for key, value in step.items() if key not in ("op", "expect")}
        if step["op"] == "connect":
            asked = self._connecting(step)
        answer = self._driver.ask(step["op"], **asked)
        yield from findings(answer, step.get("expect", {}))
        if "error" not in answer and "error" not in step.get("expect", {}):
            yield from self._twins.findings(step, answer["ok"])

    def _connecting(self, step: Fields) -> Fields:
        """With what the stage knows: addresses, and $names of what gives access."""
        options = {name: self._filled_in(value) for name, value in step.get("options", {}).items()}
        self._twins.models[step.get("llm", "main")] = options.get("model", "demo")
        asked = {"llm": step.get("llm", "main"), "options": options}
        if "targets" in options:
            options["targets"] = [self._runner.target(server) for server in options["targets"]]
            return asked
        return {**asked, "target": step.get("target") or self._stage.gate.address}

    def _filled_in(self, value: Any) -> Any:
        return self._stage.access[value[1:]] if isinstance(value, str) and value.startswith("$") else value
