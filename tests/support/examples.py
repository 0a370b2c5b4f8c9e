"""How hypothesis makes examples for whatever takes foreign bytes."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings


def the_same_every_time(count: int) -> settings:
    """So many examples, the same in every run and as long as they take; one that fails is reported as it is."""
    return settings(
        max_examples=count,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
