"""The table of metrics in the documentation is the catalogue of the code."""

from __future__ import annotations

import re
from pathlib import Path

from transparent_llm_server.telemetry.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"^\| `(transparent_llm_\w+)` \| (\w+) \| (.*?) \| (.*) \|$", re.MULTILINE)


def page() -> str:
    """The one that has the table."""
    (text,) = (
        text for path in (ROOT / "docs").glob("OPERATIONS*.md") if ROW.search(text := path.read_text(encoding="utf-8"))
    )
    return text


def test_every_metric_is_in_the_table_with_its_type_labels_and_meaning() -> None:
    rows = [
        (name, kind, tuple(re.findall(r"`(\w+)`", labels)), meaning)
        for name, kind, labels, meaning in ROW.findall(page())
    ]
    assert rows == [(metric.name, metric.kind, metric.labels, metric.meaning) for metric in CATALOGUE]
