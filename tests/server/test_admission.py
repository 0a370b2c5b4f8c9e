"""What can never be served is refused before anything is computed for it."""

from __future__ import annotations

import pytest

from support.engines import held
from support.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import TooLargeError

ROWS = [[1, 2, 3, 4], [5, 6]]


def test_a_run_that_the_store_can_never_hold_is_refused_before_it_waits_for_the_model() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        needed = llm.describe().run_bytes(2, 4)
    with running(run_store_bytes=needed - 1) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        with held(server._engine), pytest.raises(TooLargeError) as refused:
            llm.run_tokens(ROWS)
        assert refused.value.reason == "TOO_LARGE"
        assert refused.value.metadata == {"needed": str(needed), "allowed": str(needed - 1)}


def test_a_run_that_fills_the_store_exactly_is_served() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        needed = llm.describe().run_bytes(2, 4)
    with running(run_store_bytes=needed) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)
        assert llm.server_info().stored_run_bytes == needed


def test_the_budget_of_an_owner_counts_too() -> None:
    with running(run_bytes_per_owner=1000) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        with held(server._engine), pytest.raises(TooLargeError, match="stores 1000 of one owner"):
            llm.run_tokens(ROWS)
