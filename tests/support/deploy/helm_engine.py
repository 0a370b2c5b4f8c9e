"""A process of its own for Helm's engine: `render` or `lint` and the chart are its arguments, values come as JSON."""

from __future__ import annotations

import json
import sys

import helm_python

OLDEST = "v1.27.0"


def main() -> None:
    what, chart = sys.argv[1:]
    values = json.load(sys.stdin)
    if what == "lint":
        json.dump(helm_python.lint(chart, values, strict=True, kube_version=OLDEST), sys.stdout)
        return
    with helm_python.Chart.load(chart) as loaded:
        loaded.validate_schema(values)
        json.dump(loaded.render(values, name="llm", namespace="llm"), sys.stdout)


if __name__ == "__main__":
    main()
