"""The figures of docs/benchmarks.md are what benchmarks printed: written from their lines of JSON, by nobody's hand."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from support.deploy.checkout import ROOT, needs_a_checkout

sys.path.append(str(ROOT / "benchmarks"))
from peers import table
from peers.spread import Median

MACHINE = {"machine": "a CPU, 2 cores", "threads": 2, "waiting": "passive", "commit": "abc1234", "date": "2026-01-02"}
READ: dict[str, Any] = {
    "name": "small_read",
    "compared": "A read beside an echo | both alone.",
    "ratio": 1.256,
    "ratio_quartiles": [1.2, 1.3111],
    "better": "lower",
    "target": 1.3,
    "met": True,
    "bytes": 16384,
    "read_ms": 0.8413,
    "idle": {"p50_ms": 1.0},
    "gb_per_s": {"ours": 3.351, "flight": 1.9},
    "quick": None,
    "load": [0.5, 2.25],
    **MACHINE,
}
RUN: dict[str, Any] = {
    "name": "run",
    "compared": "Runs.",
    "rows": [
        {"batch": [1, 128], "ratio": 1.5, "better": "higher", "target": 2, "met": False, "huggingface_ms": 1197.2},
        {"batch": [8, 128], "ratio": 1234.5, "better": "higher", "twice": 2.04, "twice_quartiles": [2, 2.1]},
    ],
    "quick": "7 pairs",
    "load": [0.5, 2.25],
    **MACHINE,
}
DOCUMENT = f"# Title\n\n{table.BEGIN}\nold\n{table.END}\n\nWords."


@needs_a_checkout
def test_the_document_says_what_the_lines_say() -> None:
    document = (ROOT / "docs/benchmarks.md").read_text(encoding="utf-8")
    lines = table.read(ROOT / "docs/benchmarks.jsonl")
    assert lines, "no benchmark has been run"
    assert table.rewritten(document, lines) == document, "run a benchmark by `make bench`, or undo edits by hand"


def test_each_shape_is_a_row() -> None:
    measured = "A, abc1234, 2026-01-02, load 0.5 to 2.25, 2 threads, waiting passive"
    assert table.section([READ, RUN]).splitlines() == [
        "* A: a CPU, 2 cores",
        "",
        "| benchmark | of | ratio (quartiles) | target | figures | measured |",
        "|---|---|---|---|---|---|",
        "| `small_read`: A read beside an echo / both alone. |  | **1.26** (1.2 to 1.31) | at most 1.3, met | "
        f"bytes 16,384; read 0.841 ms; idle: p50 1 ms; ours 3.35 GB/s, flight 1.9 GB/s | {measured} |",
        "| `run`: Runs. | batch 1 x 128 | **1.5** | at least 2, missed | huggingface 1,197 ms | "
        f"short form (7 pairs); {measured} |",
        "|  | batch 8 x 128 | **1,234** | more is better | twice 2.04 (2 to 2.1) |  |",
    ]


def test_only_what_is_between_the_marks_is_written() -> None:
    written = table.rewritten(DOCUMENT, [READ])
    assert written.startswith(f"# Title\n\n{table.BEGIN}\n\n* A: a CPU")
    assert written.endswith(f" |\n\n{table.END}\n\nWords.")
    assert "old" not in written
    assert table.rewritten(written, [READ]) == written


@pytest.mark.parametrize("document", ["", table.BEGIN, f"{table.END}{table.BEGIN}", DOCUMENT + table.END])
def test_a_document_without_marks_is_refused(document: str) -> None:
    with pytest.raises(ValueError, match="two marks"):
        table.rewritten(document, [READ])


def test_the_newest_line_counts_but_a_short_form_replaces_no_full_one(tmp_path: Path) -> None:
    figures, document = tmp_path / "benchmarks.jsonl", tmp_path / "benchmarks.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    short = {**READ, "quick": "less", "ratio": 9.0}
    for newer in ([short], [READ], [short, RUN], [{**RUN, "quick": "still less"}]):
        table.add(newer, figures, document)
    kept = [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]
    assert kept == [{**RUN, "quick": "still less"}, READ]
    assert document.read_text(encoding="utf-8") == table.rewritten(DOCUMENT, kept)


def test_a_line_of_a_gpu_stands_beside_that_of_the_cpu(tmp_path: Path) -> None:
    figures, document = tmp_path / "benchmarks.jsonl", tmp_path / "benchmarks.md"
    document.write_text(DOCUMENT, encoding="utf-8")
    on_gpu = {**READ, "device": "A Fast GPU"}
    for newer in (on_gpu, {**READ, "device": "cpu"}, {**on_gpu, "ratio": 1.0}):
        table.add([newer], figures, document)
    rows = [row for row in document.read_text(encoding="utf-8").splitlines() if row.startswith("| `small_read`")]
    assert ["**1** (1.2" in row and "A with A Fast GPU, abc1234" in row for row in rows] == [True, False]
    assert "A, abc1234" in rows[1]


def test_a_median_knows_its_quartiles() -> None:
    median = Median.of([4.0, 1.0, 2.0, 3.0, 10.0])
    assert (median, median.quartiles) == (3.0, (2.0, 4.0))
    assert Median.of([5.0]).quartiles == (5.0, 5.0)
