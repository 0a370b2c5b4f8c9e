"""A server that was there and is gone: what its clients say, how long they wait, and that they find it again."""

from __future__ import annotations

import logging
import time

import pytest

from support.network.gate import gate
from support.servers.servers import running
from transparent_llm import RemoteTransparentLlm, connect, errors

WAIT_S = 1.5


def test_a_lost_server_is_waited_for_once_by_a_read_that_was_read_ahead() -> None:
    """The thread that reads ahead waits, and its caller for it; another whole wait after that would be twice."""
    with running() as server:
        llm = connect(server.address, reconnect_s=WAIT_S, timeout_s=60, read_ahead_bytes=1)
        llm.run_tokens([list(range(1, 61))])
        _walk(llm, range(3))
        server.stop()
        began = time.monotonic()
        with pytest.raises(
            errors.UnavailableError, match=r"was lost and did not come back within 1\.5 s \(reconnect_s"
        ):
            _walk(llm, range(3, 60))
        took = time.monotonic() - began
        with pytest.raises(errors.UnavailableError, match="was lost and did not come back"):
            llm.logits()
        again = time.monotonic() - began - took
        llm.close()
    print(f"\nwaited {took:.1f} s, then {again:.1f} s")
    assert WAIT_S <= took < 2 * WAIT_S + 1.5  # a try may begin just before the end
    assert again < WAIT_S


def _walk(llm: RemoteTransparentLlm, positions: range) -> None:
    for pos in positions:
        llm.neuron_activations(0, 1, pos)


def test_the_log_says_within_a_second_that_the_client_waits(caplog: pytest.LogCaptureFixture) -> None:
    with running() as server, RemoteTransparentLlm(server.address, reconnect_s=WAIT_S) as llm:
        llm.model_info()
        server.stop()
        began = time.time()
        with caplog.at_level(logging.WARNING, "transparent_llm"), pytest.raises(errors.UnavailableError):
            llm.model_info()
    (told,) = caplog.records
    assert told.getMessage() == f"ModelInfo: {server.address} was lost (UNAVAILABLE); waiting up to 1.5 s for it"
    assert told.created - began < 1.3  # gRPC's own tries take about 0.7 s of it


def test_is_serving_says_no_where_none_answers() -> None:
    with running() as server, RemoteTransparentLlm(server.address) as llm:
        assert llm.is_serving()
        server.stop()
        assert not llm.is_serving()
    with RemoteTransparentLlm("127.0.0.1:1") as nobody:
        assert not nobody.is_serving()


def test_a_new_client_does_not_wait_for_what_an_old_one_failed_to_reach() -> None:
    """gRPC shares connections of equal settings within a process, and with them the pauses between tries to connect."""
    with running() as first, gate(first.address) as way:
        address = way.address
        with connect(address) as old:
            way.close()
            for _ in range(3):
                assert not old.is_serving()
            with running(listen=address):
                began = time.monotonic()
                connect(address).close()
                assert time.monotonic() - began < 0.5
                while not old.is_serving():
                    assert time.monotonic() - began < 5
