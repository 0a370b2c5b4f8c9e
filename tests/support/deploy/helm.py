"""The Helm chart as Helm's own engine renders and lints it: a library in Go, which gets a process of its own."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.deploy.manifests import ROOT, Loader, Manifest

CHART = ROOT / "deploy" / "helm" / "transparent-llm"
SCHEMA: dict[str, Any] = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
ENGINE = Path(__file__).with_name("helm_engine.py")


class HelmError(Exception):
    """What Helm says of values or templates that it does not take."""


def values_file(name: str) -> dict[str, Any]:
    """A file of values that the chart has."""
    found: dict[str, Any] = yaml.load((CHART / name).read_text(encoding="utf-8"), Loader)
    return found


def render(values: dict[str, Any]) -> list[Manifest]:
    """All objects that `helm install` would make with these values over the chart's own, in the order of the files.

    Raises:
        HelmError: the values are not as the schema wants them, or a template fails.
    """
    files = json.loads(_asked("render", json.dumps(values)))
    texts = [text for name, text in sorted(files.items()) if name.endswith(".yaml")]
    return copy.deepcopy([one for text in texts for one in yaml.load_all(text, Loader) if one is not None])


def notes(values: dict[str, Any]) -> str:
    """What `helm install` prints."""
    files = json.loads(_asked("render", json.dumps(values)))
    (text,) = (text for name, text in files.items() if name.endswith("NOTES.txt"))
    return str(text)


def lint(values: dict[str, Any]) -> list[str]:
    """What `helm lint --strict` has to say, but for hints.

    Raises:
        HelmError: it cannot be linted at all.
    """
    report = json.loads(_asked("lint", json.dumps(values)))
    assert report["total_charts_linted"] == 1
    return [each["error"] for each in report["messages"] if each["severity"] > 1] + report["errors"]


@cache
def _asked(what: str, values: str) -> str:
    if importlib.util.find_spec("helm_python") is None:
        reason = "no Helm here: the package helm-python-sdk of the extra [dev] has it"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    command = [sys.executable, ENGINE, what, CHART]
    done = subprocess.run(command, input=values, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise HelmError(done.stderr)
    return done.stdout
