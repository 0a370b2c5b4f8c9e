"""What the other tests of this suite measure by: without any attack, everything that they hold must hold."""

from __future__ import annotations

import threading

import pytest

from attack.victim import standing_by, victim

pytestmark = pytest.mark.measured


def test_without_an_attack_nobody_suffers() -> None:
    with victim() as attacked, standing_by(attacked) as bystander:
        threading.Event().wait(1.0)
    assert len(bystander.reads_s) > 20
    assert len(bystander.health_s) > 10
