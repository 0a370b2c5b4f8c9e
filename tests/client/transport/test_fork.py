"""A process that was forked, or spawned with a client as an argument, opens a connection of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parent / "fork_script.py"


def test_parent_child_and_worker_all_read_the_right_values() -> None:
    finished = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True, timeout=240, check=False)
    assert finished.returncode == 0, finished.stderr
    assert sorted(finished.stdout.split()) == ["child-ok", "parent-before-ok", "parent-ok", "spawned-ok"]
