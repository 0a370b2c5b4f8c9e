"""A server that has no room: its clients come back when it says, within their time, and not all together."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.servers.engines import held
from support.servers.polling import wait_until
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client.config import ClientConfig
from transparent_llm.client.progress import Meter
from transparent_llm.client.transport import retries
from transparent_llm.client.transport.absence import Absence
from transparent_llm.errors import BusyError

ROWS = [[1, 2, 3, 4], [5, 6]]


def test_a_client_that_is_told_to_come_back_does(caplog: pytest.LogCaptureFixture) -> None:
    """Of both kinds of calls: one message, and a stream."""
    settings = {"max_streams": 2, "busy_retry_s": 0.02}
    with running(**settings) as server, RemoteTransparentLlm(server.address, timeout_s=30, read_ahead_bytes=0) as llm:
        llm.run_tokens(ROWS)
        caplog.set_level("DEBUG", "transparent_llm")
        with ThreadPoolExecutor(4) as threads:
            with held(server._engine):
                waiting = [threads.submit(llm.copy().run_tokens, [[row]]) for row in (1, 2)]
                wait_until(lambda: server._engine.queued_runs == 2)
                coming_back = [threads.submit(llm.model_info), threads.submit(llm.residual_in, 0)]
                for said in ("making a call again", "stream broken"):
                    wait_until(lambda said=said: said in caplog.text)  # type: ignore[misc]
                assert not any(each.done() for each in coming_back)
            for each in (*waiting, *coming_back):
                each.result()


def test_clients_that_were_told_to_come_back_do_not_come_together(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(retries.time, "sleep", pauses.append)
    busy, meter = BusyError("no room", retry_after_s=2.0), Meter("Run", wanted=False)
    for _ in range(100):
        retries.Retries(ClientConfig(), Absence(), meter, was_reached=True).backoff(busy, time.monotonic() + 60)
    assert 2.0 <= min(pauses) < 2.5 < 3.5 < max(pauses) <= 4.0
