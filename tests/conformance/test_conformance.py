"""The Python client passes everything, and the suite finds what a client does wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from conformance import languages, vectors
from conformance.__main__ import MISSING, is_green, main, reason_of, table_lines
from conformance.clients import Client, clients
from conformance.driver import Driver, DriverFailure, driving
from conformance.liars import LIES, VECTOR_LIES, Liar
from conformance.record import VECTORS, written
from conformance.scenario import FOLDER, Play, Scenario, scenarios
from conformance.stage import Stage, stage
from transparent_llm.contract import TransparentLlm

SCENARIOS = {scenario.name: scenario for scenario in scenarios()}


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    with driving(clients()["python"].command) as started:
        yield started
        assert started.end() == 0


@pytest.fixture(scope="module")
def whole_stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage"), through_envoy=False) as made:
        yield made


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_python_client_passes(name: str, driver: Driver, whole_stage: Stage) -> None:
    assert list(Play(driver, whole_stage, SCENARIOS[name]).findings()) == []


@pytest.mark.parametrize("name", VECTORS)
def test_the_python_client_reads_the_vectors(name: str, driver: Driver) -> None:
    assert list(vectors.vector_findings(driver, name)) == []


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_are_those_that_were_written(name: str) -> None:
    """`python -m conformance.record` writes them."""
    assert (vectors.FOLDER / f"{name}.json").read_text(encoding="utf-8") == written(VECTORS[name]())
    assert vectors.names() == sorted(VECTORS)


def test_every_method_of_the_class_is_called() -> None:
    called = {
        step.get("method")
        for scenario in SCENARIOS.values()
        for step in scenario.steps
        if "error" not in step.get("expect", {})
    }
    of_class = {name for name, value in vars(TransparentLlm).items() if getattr(value, "__isabstractmethod__", False)}
    assert len(of_class) == 17
    assert of_class <= called


def test_every_file_is_in_a_form_that_record_writes() -> None:
    for path in FOLDER.glob("*.json"):
        lines = path.read_text(encoding="utf-8").splitlines()
        steps = json.loads(path.read_text(encoding="utf-8"))["steps"]
        assert sum(line.startswith("    {") for line in lines) == len(steps), path


# -- a client that does something wrong is found out ---------------------------------------------------------------


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_is_found(lie: str, driver: Driver, whole_stage: Stage) -> None:
    name, told = LIES[lie]
    assert list(Play(Liar(driver, told), whole_stage, SCENARIOS[name]).findings())


@pytest.mark.parametrize("lie", VECTOR_LIES)
def test_a_lie_about_vectors_is_found(lie: str, driver: Driver) -> None:
    name, told = VECTOR_LIES[lie]
    assert list(vectors.vector_findings(Liar(driver, told), name))


ONE = {"op": "connect", "options": {"targets": ["main"]}}
ANOTHER = {"op": "connect", "llm": "another", "options": {"targets": ["second"]}}
CONNECT, RUN = {"op": "connect"}, {"op": "call", "method": "run", "args": [["My lord"]]}
LOGITS, AGAIN = {"op": "call", "method": "logits"}, {**RUN, "args": [["What say you"]]}
MISDEEDS: dict[str, list[dict[str, Any]]] = {
    "one_run_key": [RUN, AGAIN, {"runner": "expect_one_run_key"}],
    "run_keys": [RUN, AGAIN, {"runner": "expect_run_keys", "keys": ["one", "another"]}],
    "calls": [RUN, LOGITS, {"runner": "expect_calls", "names": ["Run"]}],
    "interruptions": [RUN, LOGITS, {"runner": "expect_interruptions", "count": 1}],
    "carried": [RUN, LOGITS, {"runner": "expect_carried", "at_most": 100}],
    "servers": [RUN, LOGITS, {"runner": "expect_servers", "count": 2}],
    "kept servers": [ONE, ANOTHER, RUN, {**RUN, "llm": "another"}, {"runner": "expect_kept_servers"}],
    "no runs": [{"runner": "expect_kept_servers"}],
    "a value that was kept": [RUN, LOGITS, LOGITS, {"runner": "expect_calls", "names": ["Run", "Logits"]}],
    "no error": [{**RUN, "expect": {"error": {"class": "BusyError", "reason": "BUSY"}}}],
    "an error": [LOGITS],
}


@pytest.mark.parametrize("misdeed", MISDEEDS)
def test_what_the_runner_looks_at_can_fail(misdeed: str, driver: Driver, whole_stage: Stage) -> None:
    scenario = Scenario("misdeed", "", [CONNECT, *MISDEEDS[misdeed]])
    assert list(Play(driver, whole_stage, scenario).findings())


class Clinging(Driver):
    """Passes on what a driver answers, but closes nothing."""

    def __init__(self, honest: Driver) -> None:
        self._honest = honest

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        return {"error": "not now"} if op == "close" else self._honest.ask(op, **fields)


def test_a_client_that_does_not_close_is_found(driver: Driver, whole_stage: Stage) -> None:
    found = list(Play(Clinging(driver), whole_stage, Scenario("misdeed", "", [CONNECT, RUN])).findings())
    assert found == ["main could not be closed: not now"]


def test_a_stream_that_was_not_left_is_found(
    driver: Driver, whole_stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("conformance.runner.SOON", 0.2)
    steps = [CONNECT, RUN, {"runner": "mark"}, LOGITS, {"runner": "expect_left"}]
    found = list(Play(driver, whole_stage, Scenario("misdeed", "", steps)).findings())
    assert found == ["step 5 (expect_left): the server was not told that the client left"]


def test_a_driver_that_does_not_answer_is_no_client(tmp_path: Path) -> None:
    silent = tmp_path / "silent.py"
    silent.write_text("import sys\nprint('who knows', file=sys.stderr)\n")
    with driving([clients()["python"].command[0], str(silent)]) as started:
        with pytest.raises(DriverFailure, match="who knows"):
            started.ask("hello")


def test_the_table_shows_what_fails_and_what_does_not_apply() -> None:
    results = {"one": {"a": "ok", "b": "FAILED"}, "another": {"a": "ok", "b": "a reason"}, "third": {}}
    assert list(table_lines(results)) == [
        "         one    another      third",
        "a         ok         ok  not built",
        "b     FAILED        (1)  not built",
        "(1) does not apply: a reason",
    ]
    assert [is_green({name: result}) for name, result in results.items()] == [False, True, False]


def test_the_page_has_the_table_of_what_each_language_has() -> None:
    """`python -m conformance --languages` in tests/ writes it."""
    text = languages.FILE.read_text(encoding="utf-8")
    assert text == languages.with_table(text)


def test_clients_lack_only_what_scenarios_need() -> None:
    needed = {scenario.needs for scenario in SCENARIOS.values()} - {""}
    assert needed == set(languages.NEEDS)
    assert {name for client in clients().values() for name in client.lacks} <= needed
    assert not clients()["python"].lacks


def test_what_a_client_lacks_is_missing_and_no_failure() -> None:
    scenario = Scenario("some", "", [], needs="sweep", not_for={"page": "a reason"})
    client = Client("one", "One", ["driver"], lacks=["sweep"])
    reasons = [reason_of(each, scenario) for each in (client, replace(client, lacks=[]), replace(client, name="page"))]
    assert reasons == [MISSING, "", "a reason"]
    assert is_green({"one": {"some": MISSING}})
    assert list(table_lines({"one": {"some": MISSING}})) == ["            one", "some    missing"]


def test_a_client_that_nobody_knows_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cobol"]) == 2
    assert "there are python, typescript-node" in capsys.readouterr().err
