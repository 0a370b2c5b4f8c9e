"""Dashboard and alerts name metrics that there are, and have the form that Grafana and Prometheus read."""

from __future__ import annotations

import re
from itertools import combinations
from typing import Any

import pytest
import yaml

from support.deploy.dashboard import dashboard, expressions
from support.deploy.prometheus import CONFIG, DEPLOY
from transparent_llm_server.telemetry.catalogue import CATALOGUE

NAME = re.compile(r"\btransparent_llm_\w+")
GRID_WIDTH = 24


def exported() -> set[str]:
    """As queries name them: a histogram is three."""
    parts = {"histogram": ("_bucket", "_sum", "_count")}
    return {metric.name + part for metric in CATALOGUE for part in parts.get(metric.kind, ("",))}


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CONFIG.parent / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    return [rule for group in groups for rule in group["rules"]]


def labels_in(expression: str) -> set[tuple[str, str]]:
    """Metrics with the labels that are asked of them."""
    found = re.findall(r"(transparent_llm_\w+)\{([^}]*)\}", expression)
    return {(name, label) for name, inside in found for label in re.findall(r"(\w+)\s*[=!]", inside)}


def overlap(one: dict[str, int], other: dict[str, int]) -> bool:
    apart = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
    above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    return not (apart or above)


def test_the_dashboard_shows_only_metrics_that_there_are_and_all_of_them() -> None:
    shown = {name for expression in expressions() for name in NAME.findall(expression)}
    assert shown <= exported()
    assert [metric.name for metric in CATALOGUE if not any(name.startswith(metric.name) for name in shown)] == []


def test_alerts_watch_only_metrics_that_there_are() -> None:
    watched = {name for alert in alerts() for name in NAME.findall(alert["expr"])}
    assert watched
    assert watched <= exported()


def test_labels_in_queries_are_those_of_the_metrics() -> None:
    of = {name: set(metric.labels) for metric in CATALOGUE for name in exported() if name.startswith(metric.name)}
    asked = {pair for query in (*expressions(), *(alert["expr"] for alert in alerts())) for pair in labels_in(query)}
    assert len(asked) > 20
    assert {(n, label) for n, label in asked if label not in of[n] | {"instance", "job", "le"}} == set()


def test_an_unknown_metric_or_label_would_be_seen() -> None:
    assert NAME.findall("rate(transparent_llm_made_up_total[5m])") == ["transparent_llm_made_up_total"]
    assert "transparent_llm_made_up_total" not in exported()
    assert labels_in('sum(transparent_llm_models{made="up", state!="x"})') == {
        ("transparent_llm_models", "made"),
        ("transparent_llm_models", "state"),
    }


def test_alerts_say_how_bad_it_is_and_what_to_do() -> None:
    for alert in alerts():
        assert alert["labels"]["severity"] in ("critical", "warning")
        before, colon, after = alert["annotations"]["summary"].partition(": ")
        assert before, alert
        assert colon, alert
        assert len(after.split()) >= 4, alert


def test_the_dashboard_has_what_grafana_needs() -> None:
    board = dashboard()
    assert (board["uid"], board["title"]) == ("transparent-llm", "Transparent LLM")
    assert board["schemaVersion"] >= 36
    assert board["time"].keys() == {"from", "to"}
    (instance,) = board["templating"]["list"]
    assert (instance["name"], instance["multi"], instance["includeAll"]) == ("instance", True, True)
    for panel in board["panels"]:
        assert panel["type"] in ("timeseries", "stat")
        assert panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        references = [target["refId"] for target in panel["targets"]]
        assert references == sorted(set(references))
        assert all(target["legendFormat"] for target in panel["targets"])


def test_panels_have_ids_and_places_of_their_own() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len({panel["title"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= GRID_WIDTH for place in places)
    assert [(one, other) for one, other in combinations(places, 2) if overlap(one, other)] == []


@pytest.mark.parametrize(
    ("x", "y", "overlaps"), [(0, 0, True), (7, 3, True), (8, 0, False), (0, 4, False), (8, 4, False)]
)
def test_overlap_is_seen(x: int, y: int, overlaps: bool) -> None:
    assert overlap({"x": 0, "y": 0, "w": 8, "h": 4}, {"x": x, "y": y, "w": 8, "h": 4}) == overlaps


def test_panels_ask_the_source_that_is_provisioned() -> None:
    (source,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text(encoding="utf-8")
    )["datasources"]
    read = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == read
    board = dashboard()
    asked = [part["datasource"] for part in (*board["panels"], *board["templating"]["list"])]
    asked += [target["datasource"] for panel in board["panels"] for target in panel["targets"]]
    assert all(one == {"type": source["type"], "uid": source["uid"]} for one in asked)
    (provider,) = yaml.safe_load(
        (DEPLOY / "grafana/provisioning/dashboards/transparent-llm.yml").read_text(encoding="utf-8")
    )["providers"]
    assert provider["type"] == "file"
    assert provider["options"]["path"] == "/etc/grafana/dashboards"


def test_replicas_and_the_proxy_are_found_by_name() -> None:
    scrapes = {s["job_name"]: s for s in yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["scrape_configs"]}
    found = {
        job: (names["names"], names["type"], names["port"], scrape.get("metrics_path", "/metrics"))
        for job, scrape in scrapes.items()
        for names in scrape["dns_sd_configs"]
    }
    assert found == {
        "transparent-llm": (["transparent-llm-servers"], "A", 9464, "/metrics"),
        "envoy": (["envoy"], "A", 9902, "/stats/prometheus"),
    }
