"""The interpreter of a server is never long at work of its own, in which it answers nobody."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from attack.victim import OTHER, Victim, victim
from support.servers.polling import wait_until

pytestmark = pytest.mark.measured

COUNTING = Path(__file__).parent / "counting_server.py"
COUNTED = re.compile(r"(\d+) objects are set aside, (\d+) are not")


def counted(attacked: Victim) -> tuple[int, int]:
    """Objects that its garbage collector leaves alone, and those that it would go over."""
    os.kill(attacked.process.pid, signal.SIGUSR1)
    wait_until(lambda: COUNTED.search(attacked.log))
    aside, others = COUNTED.findall(attacked.log)[-1]
    return int(aside), int(others)


def test_the_garbage_collector_leaves_what_was_loaded_alone() -> None:
    """It went over all objects of torch and transformers, for 0.3 s each time."""
    with victim(script=COUNTING) as attacked:
        with attacked.client(OTHER) as llm:
            llm.run(["What say you?"])
        aside, others = counted(attacked)
    assert aside > 100_000
    assert others < aside / 10
