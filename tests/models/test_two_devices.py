"""Values of a model whose layers lie on two devices that refuse each other's tensors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.utils import backend_registration

SCRIPT = Path(__file__).with_name("two_devices.py")
FAMILIES = ["gpt2", "llama_gqa", "mixtral", "gemma2", "granite", "gptj"]


@pytest.fixture(scope="module")
def outcomes() -> dict[str, str]:
    """Of each family, all from one process."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run(
        [sys.executable, str(SCRIPT), *FAMILIES], env=environment, capture_output=True, text=True, timeout=240
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    found: dict[str, str] = json.loads(finished.stdout.splitlines()[-1])
    return found


@pytest.mark.skipif(
    not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"),
    reason="this torch has no devices that are written in Python",
)
@pytest.mark.parametrize("family", FAMILIES)
def test_they_are_those_of_the_model_on_one(family: str, outcomes: dict[str, str]) -> None:
    assert outcomes[family] == "29 values are equal"
