"""The Grafana dashboard of the project, as data."""

from __future__ import annotations

import json
from typing import Any

from support.deploy.prometheus import DEPLOY

DASHBOARD = DEPLOY / "grafana" / "dashboards" / "transparent-llm.json"


def dashboard() -> Any:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def expressions() -> list[str]:
    """Of all panels, in PromQL with Grafana's variables."""
    return [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
