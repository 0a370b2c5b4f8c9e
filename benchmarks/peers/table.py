"""The table of docs/benchmarks.md, made of the lines of JSON that benchmarks print: nobody copies a figure by hand.

docs/benchmarks.jsonl has the newest line of each benchmark on each device, the marked section of docs/benchmarks.md
what they say.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

Line = Mapping[str, Any]

BEGIN = "<!-- figures: `make bench` writes what stands between these two lines, from benchmarks.jsonl -->"
END = "<!-- end of figures -->"
_HEAD = ("| benchmark | of | ratio (quartiles) | target | figures | measured |", "|---|---|---|---|---|---|")
_LABELS = ("what", "read", "peer", "client", "replicas", "clients", "batch", "tokens")
"""Fields that say which row it is."""

_RATIO = ("ratio", "ratio_quartiles", "better", "target", "met")
_UNITS = {
    "_gb_per_s": "GB/s",
    "_mb_per_s": "MB/s",
    "_calls_per_s": "calls/s",
    "_runs_per_s": "runs/s",
    "_ms": "ms",
    "_mb": "MB",
    "_s": "s",
}
"""By the end of a field's name, longest first."""


def kept(lines: Sequence[Line], newer: Sequence[Line]) -> list[Line]:
    """The newest line of each benchmark on each device; a short form replaces no full one."""
    found = {_key(line): line for line in lines}
    for line in newer:
        if not line["quick"] or found.get(_key(line), line)["quick"]:
            found[_key(line)] = line
    return [found[key] for key in sorted(found)]


def _key(line: Line) -> tuple[str, str]:
    return line["name"], _device(line)


def _device(line: Line) -> str:
    return str(line.get("device", "cpu"))


def section(lines: Sequence[Line]) -> str:
    """What stands between the marks."""
    machines = sorted({line["machine"] for line in lines})
    named = {machine: chr(ord("A") + i) for i, machine in enumerate(machines)}
    where = [f"* {name}: {machine}" for machine, name in named.items()]
    rows = [row for line in lines for row in _rows(line, named[line["machine"]])]
    return "\n".join([*where, "", *_HEAD, *rows])


def rewritten(document: str, lines: Sequence[Line]) -> str:
    """The document with the section of these lines.

    Raises:
        ValueError: it does not have each mark once.
    """
    before, begin, rest = document.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in rest or END in after:
        raise ValueError("the document must have each of the two marks once")
    return f"{before}{BEGIN}\n\n{section(lines)}\n\n{END}{after}"


def add(newer: Sequence[Line], figures: Path, document: Path) -> None:
    """To the file of lines, and write the document's section anew."""
    lines = kept(read(figures), newer)
    figures.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    document.write_text(rewritten(document.read_text(encoding="utf-8"), lines), encoding="utf-8")


def read(figures: Path) -> list[Line]:
    """All lines; none where there is no file."""
    if not figures.exists():
        return []
    return [json.loads(line) for line in figures.read_text(encoding="utf-8").splitlines()]


def _rows(line: Line, machine: str) -> Iterator[str]:
    """One for each shape; the first says what is compared, when and beside what."""
    common = {name: line[name] for name in ("bytes", "pairs", "phase_s") if name in line}
    shapes = [{**common, **row} for row in line.get("rows", ())] or [_own(line)]
    for i, row in enumerate(shapes):
        first = f"`{line['name']}`: {line['compared']}" if i == 0 else ""
        cells = (
            first,
            _label(row),
            _ratio(row),
            _target(row),
            _figures(row),
            _measured(line, machine) if not i else "",
        )
        yield f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def _own(line: Line) -> dict[str, Any]:
    """Figures of a benchmark that has one shape."""
    apart = ("name", "compared", "quick", "machine", "device", "threads", "waiting", "commit", "date", "load")
    return {name: value for name, value in line.items() if name not in apart}


def _label(row: Line) -> str:
    return ", ".join(f"{_words(name)} {_label_value(row[name])}".strip() for name in _LABELS if name in row)


def _words(name: str) -> str:
    return "" if name in ("what", "read", "peer", "client") else name


def _label_value(value: object) -> str:
    return " x ".join(map(str, value)) if isinstance(value, list) else str(value).replace("_", " ")


def _ratio(row: Line) -> str:
    return _with_quartiles(row, "ratio", bold=True) if "ratio" in row else ""


def _with_quartiles(row: Line, name: str, *, bold: bool = False) -> str:
    value, quartiles = _number(row[name]), row.get(f"{name}_quartiles")
    shown = f"**{value}**" if bold else value
    return f"{shown} ({_number(quartiles[0])} to {_number(quartiles[1])})" if quartiles else shown


def _target(row: Line) -> str:
    if "target" not in row:
        return {"higher": "more is better", "lower": "less is better"}.get(row.get("better", ""), "")
    bound = "at least" if row["better"] == "higher" else "at most"
    return f"{bound} {_number(row['target'])}, {'met' if row['met'] else 'missed'}"


def _figures(row: Line) -> str:
    return "; ".join(_figure(row, name) for name in row if name not in (*_RATIO, *_LABELS) and _is_shown(row, name))


def _is_shown(row: Line, name: str) -> bool:
    return not name.endswith("_quartiles") and not isinstance(row[name], list | str | bool)


def _figure(row: Line, name: str) -> str:
    if isinstance(row[name], dict):
        unit = next((unit for end, unit in _UNITS.items() if f"_{name}".endswith(end)), "")
        inner = row[name] if not unit else {f"{key}_{name}": value for key, value in row[name].items()}
        words = "" if unit else f"{name.replace('_', ' ')}: "
        return words + ", ".join(_figure(inner, key) for key in inner if _is_shown(inner, key))
    for end, unit in _UNITS.items():
        if name.endswith(end):
            return f"{name.removesuffix(end).replace('_', ' ')} {_number(row[name])} {unit}"
    return f"{name.replace('_', ' ')} {_with_quartiles(row, name)}"


def _number(value: float) -> str:
    """Three digits that count, and no more digits than it has."""
    if isinstance(value, int) or float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _measured(line: Line, machine: str) -> str:
    form = f"short form ({line['quick']}); " if line["quick"] else ""
    load = " to ".join(map(str, line["load"]))
    beside = f"{line['threads']} threads, waiting {line['waiting']}"
    where = machine if _device(line) == "cpu" else f"{machine} with {_device(line)}"
    return f"{form}{where}, {line['commit']}, {line['date']}, load {load}, {beside}"
