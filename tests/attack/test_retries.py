"""A server that fails again and again is asked again, but neither without end nor without a pause."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from support.servers.servers import Listener, running
from transparent_llm import RemoteTransparentLlm, errors

PATIENCE_S = 3.0


class Crumbs(Listener):
    """Of each stream only the first message comes; then the server says that it is gone."""

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        yield next(answer(request, context))
        context.abort(grpc.StatusCode.UNAVAILABLE, "gone")


def test_a_stream_that_comes_in_crumbs_is_not_asked_for_without_a_pause() -> None:
    crumbs = Crumbs()
    with running(crumbs, chunk_bytes=100) as server, RemoteTransparentLlm(server.address, timeout_s=PATIENCE_S) as llm:
        llm.run_tokens([list(range(1, 61))])
        began = time.monotonic()
        with pytest.raises(errors.DeadlineError, match="was lost at byte"):
            llm.logits()
    took = time.monotonic() - began
    print(f"\n{len(crumbs.calls)} calls in {took:.1f} s")
    assert took < PATIENCE_S + 2
    assert len(crumbs.calls) < 25 * PATIENCE_S


def test_a_progress_function_that_never_returns_holds_nobody_up_for_ever() -> None:
    """It is called in the thread that reads ahead, too, where the caller waits for what it brings."""
    never, held_up, main = threading.Event(), threading.Event(), threading.current_thread()

    def hangs(*_: Any) -> None:
        if threading.current_thread() is not main:
            held_up.set()
            never.wait(60)

    with running() as server, RemoteTransparentLlm(server.address, timeout_s=1, progress=hangs) as llm:
        llm.run_tokens([list(range(1, 61))])
        began = time.monotonic()
        for pos in range(16):
            assert llm.neuron_activations(0, 1, pos).shape == (256,)
        took = time.monotonic() - began
        never.set()
    print(f"\nheld up for {took:.1f} s")
    assert held_up.is_set()
    assert took < 20
