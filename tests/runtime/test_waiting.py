"""A server's threads sleep while they wait, and no other process is told how its threads should."""

from __future__ import annotations

import ast
import importlib
import inspect
import os
import sys

import pytest

import transparent_llm
from transparent_llm import waiting

POLICY = "OMP_WAIT_POLICY"


@pytest.mark.parametrize(
    ("argv", "before", "after"),
    [
        (["/venv/bin/transparent-llm", "serve", "--listen", "x"], None, "passive"),
        (["-m", "serve"], None, "passive"),
        (["/venv/bin/transparent-llm", "serve"], "active", "active"),
        (["/venv/bin/transparent-llm", "run", "serve"], None, None),
        (["/home/me/analysis.py", "serve"], None, None),
        ([""], None, None),
    ],
)
def test_only_a_server_is_told(
    argv: list[str], before: str | None, after: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setenv(POLICY, before or "")
    if before is None:
        monkeypatch.delenv(POLICY)
    importlib.reload(waiting)
    assert os.environ.get(POLICY) == after


def test_it_is_told_before_torch_is_loaded() -> None:
    imports = [node for node in ast.parse(inspect.getsource(transparent_llm)).body if isinstance(node, ast.ImportFrom)]
    assert [name.name for name in imports[0].names] == ["waiting"]
    assert "torch" not in inspect.getsource(waiting).split('"""')[2]
