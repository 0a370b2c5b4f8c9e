"""A real Prometheus reads real servers with the project's own configuration, rules and dashboard."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from support.deploy.dashboard import expressions
from support.deploy.prometheus import CONFIG, JOB, Prometheus, binary, scraping
from support.servers.figures import LOOPBACK, figures
from support.servers.polling import wait_for, wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, errors

ALERTS = CONFIG.parent / "alerts.yml"


def promtool(*arguments: Any) -> str:
    process = subprocess.run([binary("promtool"), *arguments], capture_output=True, text=True, timeout=60)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout


def test_its_configuration_is_right() -> None:
    assert "SUCCESS" in promtool("check", "config", CONFIG)


def test_the_rules_are_right() -> None:
    assert "8 rules found" in promtool("check", "rules", ALERTS)


def test_each_alert_fires_when_it_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", Path(__file__).with_name("alerts.yml"))


def test_it_reads_what_two_replicas_did(tmp_path: Path) -> None:
    with running(metrics_listen=LOOPBACK) as one, running(metrics_listen=LOOPBACK) as other:
        targets = sorted([one.metrics_address, other.metrics_address])
        with scraping(targets, tmp_path) as prometheus:
            wait_until(lambda: prometheus.up() == targets)
            for server, sentences in ((one, ("a", "b", "a")), (other, ("c",))):
                with RemoteTransparentLlm(server.address, cache_bytes=0, read_ahead_bytes=0) as llm:
                    for sentence in sentences:
                        llm.run([sentence])
                    llm.residual_in(0)
                    with pytest.raises(errors.IndexOutOfRangeError):
                        llm.residual_in(9)
            done = {  # a scrape that was slow leaves a gap, which the next one closes
                "sum(transparent_llm_calls_total)": 8,
                'sum(transparent_llm_calls_total{method="Run", code="OK"})': 4,
                'sum(transparent_llm_calls_total{method="ResidualIn", code="OK"})': 2,
                'sum(transparent_llm_call_duration_seconds_count{method="Run"})': 4,
                'sum(transparent_llm_forward_seconds_count{model="tiny"})': 3,
                'sum(transparent_llm_queue_wait_seconds_count{kind="run"})': 3,
                "sum(transparent_llm_run_store_hits_total)": 5,
                "sum(transparent_llm_run_store_misses_total)": 3,
                "sum(transparent_llm_run_store_runs)": 3,
                "sum(transparent_llm_run_store_bytes)": one._runs.nbytes + other._runs.nbytes,
                'sum(transparent_llm_refusals_total{reason="INDEX_OUT_OF_RANGE"})': 2,
                "sum(transparent_llm_active_calls)": 0,
                'sum(transparent_llm_models{state="loaded"})': 2,
                f'sum(up{{job="{JOB}"}})': 2,
            }
            wait_for(lambda: {expression: prometheus.value(expression) for expression in done}, done, "what was done")
            runs = {one.metrics_address: 3, other.metrics_address: 1}
            wait_for(
                lambda: by_replica(prometheus, 'transparent_llm_calls_total{method="Run"}'), runs, "runs by replica"
            )
            name = "transparent_llm_sent_bytes_total"
            sent = {server.metrics_address: figures(server)(name) for server in (one, other)}
            wait_for(lambda: by_replica(prometheus, name), sent, name)


def by_replica(prometheus: Prometheus, metric: str) -> dict[str, float]:
    found = prometheus.query(f"sum by (instance) ({metric})")
    return {labels["instance"]: value for labels, value in found}


def test_it_sees_a_server_that_is_gone(tmp_path: Path) -> None:
    with running(metrics_listen=LOOPBACK) as staying:
        with (
            running(metrics_listen=LOOPBACK) as leaving,
            scraping([staying.metrics_address, leaving.metrics_address], tmp_path) as prometheus,
        ):
            wait_until(lambda: len(prometheus.up()) == 2)
            leaving._telemetry.stop()
            wait_until(lambda: prometheus.up() == [staying.metrics_address])
            wait_until(lambda: prometheus.value('count(ALERTS{alertname="ServerDown"})') == 1)


def test_it_takes_every_expression_of_the_dashboard_and_of_the_rules(tmp_path: Path) -> None:
    with running(metrics_listen=LOOPBACK) as server, scraping([server.metrics_address], tmp_path) as prometheus:
        wait_until(lambda: prometheus.up() == [server.metrics_address])
        with RemoteTransparentLlm(server.address) as llm:
            llm.run(["one two"])
            llm.logits()
        wait_until(lambda: prometheus.value('sum(transparent_llm_calls_total{method="Logits"})') == 1)
        filled = [e.replace("$__rate_interval", "1m").replace("$instance", ".*") for e in expressions()]
        assert len(filled) > 20
        for expression in filled:
            prometheus.query(expression)
        always = [expression for expression in filled if "rate(" not in expression]
        wait_for(lambda: [e for e in always if not prometheus.query(e)], [], "what has no answer")
        rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
        assert len(rules) == 8
        wait_until(lambda: all(r["health"] == "ok" for g in prometheus.get("rules")["groups"] for r in g["rules"]))


def test_without_it_a_ci_fails_and_others_skip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"no prometheus here: scripts/install_prometheus\.sh installs it"):
        binary("prometheus")
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception):
        binary("prometheus")
