"""Calls through Envoy that say nothing: every replica stays in service, and clients are served."""

from __future__ import annotations

import time

import pytest

from attack.silence import CHECK, RUN, silent
from cluster.conftest import Cluster
from cluster.load import rows
from support.servers.polling import wait_until
from transparent_llm import RemoteTransparentLlm

pytestmark = pytest.mark.measured

LASTS_S = 5.0
"""Envoy looks at the health every second, and believes a failure after the second."""


@pytest.mark.parametrize("path", [CHECK, RUN])
def test_silent_calls_take_no_replica_out(path: str, cluster: Cluster) -> None:
    """Three health checks did, for as long as they lasted: all replicas, for everybody."""
    with silent(cluster.proxy.address, [path] * 300, connections=6):
        with RemoteTransparentLlm(cluster.proxy.address, timeout_s=30, cache_bytes=0) as llm:
            until, n_runs = time.monotonic() + LASTS_S, 0
            while time.monotonic() < until:
                llm.run_tokens(rows(n_runs % 16))
                assert llm.residual_out(1).shape[0] == len(rows(n_runs % 16))
                wait_until(
                    lambda: cluster.proxy.healthy() == set(cluster.hosts)
                )  # a busy machine misses a check at times
                n_runs += 1
    print(f"\n300 silent calls of {path}: {n_runs} runs and reads beside them, none lost")
