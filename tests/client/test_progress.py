"""What a user sees of a call that takes long: a line or a bar, which goes with the call; and nothing of all others."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import torch
from tqdm.auto import tqdm

from support.servers.engines import SOON, held
from support.servers.polling import wait_until
from support.servers.servers import Watcher, running
from transparent_llm import RemoteTransparentLlm
from transparent_llm.client import progress
from transparent_llm.errors import TransparentLlmError, UnavailableError

ROWS = [list(range(1, 61))] * 31


class Seen:
    """All that was written to standard error so far."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self._text = ""

    def __call__(self, text: str) -> bool:
        self._text += self._capfd.readouterr().err
        return text in self._text


def in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_clean() -> bool:
    """Nothing is drawn any more."""
    return not progress._drawing._meters and not getattr(tqdm, "_instances", ())


def test_a_call_that_waits_says_so_until_it_is_done(capfd: pytest.CaptureFixture[str]) -> None:
    seen = Seen(capfd)
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=60, progress=True) as llm:
        with held(server._engine):
            waiting = in_thread(lambda: llm.unembed(torch.ones(64), True))
            wait_until(lambda: seen("Unembed: waiting for the answer"))
        waiting.join()
    assert is_clean()


def test_runs_that_wait_show_how_many_are_before_them(capfd: pytest.CaptureFixture[str]) -> None:
    seen = Seen(capfd)
    with running() as server, RemoteTransparentLlm(server.address, timeout_s=60, progress=True) as llm:
        waiting = []
        with held(server._engine):
            for number in (1, 2, 3):
                waiting.append(in_thread(partial(llm.copy().run_tokens, [[number]])))
                wait_until(lambda: server._engine.queued_runs == len(waiting))
            for text in ("1 run", "2 runs", "3 runs"):
                wait_until(partial(seen, f"Run: waiting: {text} before this one"))
        for each in waiting:
            each.join()
        llm.run_tokens([[1]])  # which waits for nothing
    assert is_clean()


@pytest.mark.parametrize("ends_well", [True, False])
def test_a_transfer_that_takes_long_has_a_bar_and_leaves_none(
    ends_well: bool, capfd: pytest.CaptureFixture[str]
) -> None:
    seen, watcher = Seen(capfd), Watcher(hold_after=3)
    settings: dict[str, Any] = {"timeout_s": 60, "progress": True, "shared_memory": False}
    with running(watcher, chunk_bytes=65_536) as server, RemoteTransparentLlm(server.address, **settings) as llm:
        llm.run_tokens(ROWS)
        reading = in_thread(lambda: _quietly(llm.logits))
        wait_until(lambda: seen("Logits:") and seen("MB"))
        watcher.release.set() if ends_well else llm.close()
        reading.join()
        watcher.release.set()
    assert is_clean()


@pytest.mark.parametrize(("wanted", "drawn"), [(True, True), (False, False), (None, False), (print, False)])
def test_a_bar_is_for_whoever_wants_one_or_watches(wanted: Any, drawn: bool) -> None:
    watcher = Watcher(hold_after=1)
    with running(watcher, chunk_bytes=65_536) as server, RemoteTransparentLlm(server.address, progress=wanted) as llm:
        llm.run_tokens(ROWS)
        reading = in_thread(llm.logits)
        assert watcher.holding.wait(SOON)
        assert bool(progress._drawing._meters) is drawn
        watcher.release.set()
        reading.join()
    assert is_clean()


def test_in_a_terminal_someone_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with running() as server, RemoteTransparentLlm(server.address) as llm, held(server._engine):
        waiting = in_thread(lambda: _quietly(lambda: llm.run_tokens([[1]])))
        wait_until(lambda: progress._drawing._meters)
        llm.close()
        waiting.join()
    assert is_clean()


def test_a_lost_server_is_told_where_a_bar_would_be(capfd: pytest.CaptureFixture[str]) -> None:
    seen = Seen(capfd)
    with running() as server, RemoteTransparentLlm(server.address, reconnect_s=1.5, progress=True) as llm:
        llm.model_info()
        server.stop()
        with pytest.raises(UnavailableError):
            llm.model_info()
    assert seen(f"ModelInfo: {server.address} was lost (UNAVAILABLE); waiting up to 1.5 s for it")
    assert is_clean()


def test_nothing_is_made_for_calls_that_are_quick(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    monkeypatch.setattr(progress, "_bar", lambda *arguments: made.append(arguments))
    monkeypatch.setattr(progress, "SHOWN_AFTER_S", 60.0)
    with running() as server, RemoteTransparentLlm(server.address, cache_bytes=0, progress=True) as llm:
        llm.run_tokens([[1, 2]])
        for _ in range(50):
            llm.residual_in(0)
    assert made == []


def _quietly(read: Callable[[], object]) -> None:
    with suppress(TransparentLlmError):
        read()
