"""Drive clients through everything, and print a table: what each of them passes.

python -m conformance [CLIENT ...]
python -m conformance --languages    write the table of docs/LANGUAGES.md instead
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import torch

from conformance import languages
from conformance.clients import Client, clients
from conformance.driver import Driver, DriverFailure, driving
from conformance.scenario import Play, Scenario, scenarios
from conformance.stage import Stage, stage
from conformance.vectors import names, vector_findings
from transparent_llm.version import __version__

PASSED, FAILED, MISSING, NOT_BUILT = "ok", "FAILED", "missing", "not built"
Results = dict[str, str]


def main(wanted: list[str]) -> int:
    """The exit code: 0 if all pass."""
    if wanted == ["--languages"]:
        languages.write()
        return 0
    torch.set_num_threads(2)
    known = clients()
    unknown = [name for name in wanted if name not in known]
    if unknown:
        print(f"no such client: {', '.join(unknown)}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    table: dict[str, Results] = {}
    for name in wanted or known:
        started = time.monotonic()
        table[name] = _results(known[name])
        print(f"{name}: {time.monotonic() - started:.0f} s", flush=True)
    print(*table_lines(table), sep="\n", flush=True)
    return int(not is_green(table))


def is_green(table: dict[str, Results]) -> bool:
    """Whether every client was built and passes everything that applies to it and that it has."""
    return all(results and FAILED not in results.values() for results in table.values())


def _results(client: Client) -> Results:
    """Of each file."""
    with ExitStack() as stack:
        if not client.make():
            return {}
        performer = Performer(client)
        stack.callback(performer.stop)
        results = {"hello": performer.result("hello", _hello_findings)}
        results |= {f"vectors/{name}": performer.result(name, partial(vector_findings, name=name)) for name in names()}
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        set_up = stack.enter_context(stage(folder, through_envoy=client.through == "envoy"))
        for scenario in scenarios():
            played = partial(_findings, stage=set_up, scenario=scenario)
            results[scenario.name] = reason_of(client, scenario) or performer.result(scenario.name, played)
        results["end of input"] = performer.result("end of input", _end_findings)
    return results


def reason_of(client: Client, scenario: Scenario) -> str:
    """Why it is not played by a client; empty if it is."""
    return scenario.not_for.get(client.name) or (MISSING if scenario.needs in client.lacks else "")


def _findings(driver: Driver, stage: Stage, scenario: Scenario) -> Iterator[str]:
    return Play(driver, stage, scenario).findings()


def _hello_findings(driver: Driver) -> Iterator[str]:
    """All clients have the version of the project."""
    version = driver.ask("hello")["ok"].get("version")
    if version != __version__:
        yield f"its version is {version}, not {__version__}"


def _end_findings(driver: Driver) -> Iterator[str]:
    if code := driver.end():
        yield f"the driver exited with {code}"


class Performer:
    """One client's driver, which is started again when it did not do what a driver does."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._stack = ExitStack()
        self._driver: Driver | None = None

    def result(self, name: str, findings: Callable[[Driver], Iterable[str]]) -> str:
        """Whether there are none; they are printed."""
        found = []
        try:
            self._driver = self._driver or self._stack.enter_context(driving(self._client.command))
            found += findings(self._driver)
        except Exception as error:  # of the driver, or an answer that is not in the form that README.md has
            found.append(str(error) if isinstance(error, DriverFailure) else f"an answer could not be read: {error!r}")
            self.stop()
        for finding in found:
            print(f"{self._client.name}, {name}: {finding}", file=sys.stderr, flush=True)
        return FAILED if found else PASSED

    def stop(self) -> None:
        self._stack.close()
        self._driver = None


def table_lines(table: dict[str, Results]) -> Iterator[str]:
    """A row for each file, a column for each client; below it why something does not apply."""
    rows = max((list(results) for results in table.values()), key=len) or [NOT_BUILT]
    width = max(map(len, rows))
    reasons: list[str] = []
    widths = {name: max(len(name), len(NOT_BUILT)) for name in table}
    yield "".join([" " * width, *(f"  {name:>{widths[name]}}" for name in table)])
    for row in rows:
        cells = []
        for name, results in table.items():
            result = results[row] if results else NOT_BUILT
            if result not in (PASSED, FAILED, MISSING, NOT_BUILT):
                if result not in reasons:
                    reasons.append(result)
                result = f"({reasons.index(result) + 1})"
            cells.append(f"  {result:>{widths[name]}}")
        yield f"{row:<{width}}" + "".join(cells)
    yield from (f"({number}) does not apply: {reason}" for number, reason in enumerate(reasons, 1))


if __name__ == "__main__":
    os.environ["OMP_NUM_THREADS"] = "2"
    sys.exit(main(sys.argv[1:]))
