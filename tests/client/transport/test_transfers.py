"""Transfers: interrupted and resumed, cancelled, timed out, shown in a bar."""

from __future__ import annotations

import os
import signal
import threading

import pytest
import torch

from support.network.proxy import interrupting
from support.servers.engines import SOON
from support.servers.patience import waiting
from support.servers.servers import Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm, TransparentLlm, errors

ROWS = [list(range(1, 61))] * 31
"""31 rows of 60 tokens: the logits of the tiny model are 3.7 MB."""


def wanted() -> torch.Tensor:
    local = tiny().copy()
    local.run_tokens(ROWS)
    return local.logits()


@pytest.mark.parametrize("after", [50_000, 500_000, 1_500_000, 3_600_000])
def test_an_interrupted_stream_goes_on_where_it_broke_off(after: int) -> None:
    with running(chunk_bytes=16_384) as server, interrupting(server.address, [after]) as proxy:
        with RemoteTransparentLlm(proxy.address, timeout_s=30) as llm:
            llm.run_tokens(ROWS)
            assert torch.equal(llm.logits(), wanted())
            assert proxy.interruptions == 1


def test_a_stream_that_is_interrupted_again_and_again_ends_bit_identical() -> None:
    watcher = Watcher()
    received: list[int] = []
    after = [300_000, 400_000, 500_000, 600_000]
    with running(watcher, chunk_bytes=16_384) as server, interrupting(server.address, after) as proxy:
        with RemoteTransparentLlm(proxy.address, timeout_s=30, progress=lambda *now: received.append(now[1])) as llm:
            llm.run_tokens(ROWS)
            assert torch.equal(llm.logits(), wanted())
            assert proxy.interruptions == len(after)
    assert watcher.names.count("Logits") == len(after) + 1
    offsets = [request.options.resume_offset for request in watcher.requests]
    assert offsets == sorted(offsets)
    assert offsets[-1] > 0
    assert {*offsets} <= {0, *received}  # resumed, not begun again: only what was lost in flight is sent twice
    assert received == sorted(received)


@pytest.mark.parametrize("after", [20_000, 60_000, 150_000, 260_000])
def test_an_interrupted_stream_of_many_tensors_goes_on_where_it_broke_off(after: int) -> None:
    reads = [("residual_in", 1), ("decomposed_attn", 3, 1), ("attention_matrix", 2, 0, 1), ("decomposed_attn", 2, 0)]
    local = tiny().copy()
    local.run_tokens(ROWS[:4])
    with running(chunk_bytes=4096) as server, interrupting(server.address, [after]) as proxy:
        with RemoteTransparentLlm(proxy.address, timeout_s=30) as llm:
            llm.run_tokens(ROWS[:4])
            got = llm.fetch(reads)
            assert proxy.interruptions == 1
    for read, value in zip(reads, got, strict=True):
        assert torch.equal(value, getattr(local, read[0])(*read[1:]))


def test_ctrl_c_cancels_the_call_on_the_server() -> None:
    watcher = Watcher(hold_after=2)
    with running(watcher, chunk_bytes=4096) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)

        def press_ctrl_c() -> None:
            watcher.holding.wait(30)
            os.kill(os.getpid(), signal.SIGINT)

        presser = threading.Thread(target=press_ctrl_c)
        presser.start()
        with pytest.raises(KeyboardInterrupt):
            llm.logits()
        presser.join()
        assert watcher.cancelled.wait(SOON)
        assert watcher.messages < 10  # of about 900
        assert llm.model_info().n_layers == 2  # the connection lives on


def test_ctrl_c_at_any_moment_leaves_a_connection_that_works() -> None:
    watcher = Watcher()
    with running(watcher, chunk_bytes=1024) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)

        def press_ctrl_c(reached: threading.Event) -> None:
            if reached.wait(SOON):
                os.kill(os.getpid(), signal.SIGINT)

        for turn in range(25):
            presser = threading.Thread(target=press_ctrl_c, args=(watcher.after(1 + 13 * turn),))
            presser.start()
            with pytest.raises(KeyboardInterrupt):
                llm.logits()  # of about 3,600 messages, which do not all come before Ctrl-C
            presser.join()
            assert llm.model_info().n_layers == 2


def test_ctrl_c_keeps_a_meaning_that_the_program_gave_it() -> None:
    pressed = threading.Event()
    watcher = Watcher(hold_after=2)
    before = signal.signal(signal.SIGINT, lambda *_: pressed.set())
    try:
        with running(watcher, chunk_bytes=16_384) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
            llm.run_tokens(ROWS)

            def press_ctrl_c() -> None:
                watcher.holding.wait(30)
                os.kill(os.getpid(), signal.SIGINT)
                pressed.wait(30)
                watcher.release.set()

            presser = threading.Thread(target=press_ctrl_c)
            presser.start()
            assert torch.equal(llm.logits(), wanted())
            presser.join()
            assert pressed.is_set()
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_passed_deadline_is_a_timeout_that_names_the_server() -> None:
    watcher = Watcher(hold_after=2)
    with running(watcher, chunk_bytes=4096) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        llm.run_tokens(ROWS)
        late = f"{server.address} did not answer within the time"
        with waiting(llm, timeout_s=1), pytest.raises(errors.DeadlineError, match=late) as caught:
            llm.logits()
        assert isinstance(caught.value, TimeoutError)
        if watcher.holding.is_set():  # unless a second was over before the third message
            assert watcher.cancelled.wait(SOON)


def test_the_callers_function_is_told_how_far_a_transfer_is() -> None:
    told: list[tuple[str, int, int]] = []
    with running(chunk_bytes=65_536) as server:
        with RemoteTransparentLlm(server.address, progress=lambda *now: told.append(now), shared_memory=False) as llm:
            llm.run_tokens([[1] * 60] * 8)
            total = llm.logits().nbytes
    assert [now for now in told if now[0] != "Logits" or now[2] != total] == []
    received = [now[1] for now in told]
    assert received == sorted(set(received))
    assert len(received) == -(-total // 65_536)
    assert received[-1] == total


def check_in_thread(llm: TransparentLlm, number: int, failures: list[str]) -> None:
    local = tiny().copy()
    for turn in range(5):
        rows = [[number + 1, turn + 1, 7], [number + 2]]
        llm.run_tokens(rows)
        local.run_tokens(rows)
        same = torch.equal(llm.logits(), local.logits()) and torch.equal(
            llm.attention_matrix(1, 1, number % 4), local.attention_matrix(1, 1, number % 4)
        )
        if not same:
            failures.append(f"thread {number}, turn {turn}")


def test_many_threads_each_with_a_copy() -> None:
    failures: list[str] = []
    with served() as llm:
        threads = [threading.Thread(target=check_in_thread, args=(llm.copy(), n, failures)) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []
