"""Real servers on loopback for tests, and an interceptor that lets a test see and hold calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import grpc

from support.models.families import D_MODEL, FAMILIES, build_model, build_tokenizer
from support.models.saes import random_sae
from support.servers.engines import SOON
from transparent_llm import RemoteTransparentLlm, TransparentLlm
from transparent_llm_server import TransformerLensTransparentLlm
from transparent_llm_server.app import Server
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.rpc.interceptors.base import Work, rewrapped

Continuation = Callable[[grpc.HandlerCallDetails], Any]

GOES_ON = 500
"""Messages that a stream still sends when a test awaits one of them; then it waits until its client is gone."""


@cache
def tiny(family: str = "gpt2") -> TransformerLensTransparentLlm:
    """A tiny random model in this process, with a sparse autoencoder, loaded once; take a copy() to run something."""
    return TransformerLensTransparentLlm(
        family,
        hf_model=build_model(FAMILIES[family]()),
        tokenizer=build_tokenizer(),
        saes={"random": (random_sae(D_MODEL), "residual_out.0")},
    )


@contextmanager
def running(
    *interceptors: grpc.ServerInterceptor, serving: Mapping[str, TransparentLlm] | None = None, **settings: Any
) -> Iterator[Server]:
    """A server of the tiny GPT-2, of `serving` by name, or of the `models` that its settings name."""
    server = Server(ServerConfig(**{"listen": "localhost:0", "drain_s": 1.0, **settings}), interceptors)
    server.start()
    try:
        if "models" in settings:
            server.load()
        else:
            for name, llm in ({"tiny": tiny()} if serving is None else serving).items():
                server.serve(llm, name)
            server.ready()
        yield server
    finally:
        server.stop()


@contextmanager
def served(*interceptors: grpc.ServerInterceptor, **settings: Any) -> Iterator[RemoteTransparentLlm]:
    """A client of such a server."""
    with running(*interceptors, **settings) as server, RemoteTransparentLlm(server.address, timeout_s=30) as llm:
        yield llm


class Listener(grpc.ServerInterceptor):
    """Hears every call: names and metadata in `calls`. What it makes of streams is `_streamed`."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, str]]] = []

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.calls]

    def intercept_service(self, continuation: Continuation, details: grpc.HandlerCallDetails) -> Any:
        handler = continuation(details)
        metadata = {str(key): str(value) for key, value in details.invocation_metadata}
        self.calls.append((str(details.method).rpartition("/")[2], metadata))
        return None if handler is None else rewrapped(handler, _answer, self._streamed)

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        """The messages of a call, where `answer` makes those that the server would send."""
        return answer(request, context)


class Watcher(Listener):
    """Also sees how streams go: `cancelled` is set when a client leaves a call early.

    With `hold_after`, a stream stops after that many messages until `release` is set.
    """

    def __init__(self, hold_after: int | None = None) -> None:
        super().__init__()
        self.messages = 0
        self.requests: list[Any] = []
        self.holding, self.release, self.cancelled = threading.Event(), threading.Event(), threading.Event()
        self._hold_after = hold_after
        self._awaited: tuple[int, threading.Event] | None = None

    def after(self, messages: int) -> threading.Event:
        """Set when so many messages of the next stream have been sent, which then never ends by itself."""
        reached = threading.Event()
        self._awaited = messages, reached
        return reached

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        self.requests.append(request)
        when_over(context, self.release.set)
        for count, message in enumerate(self._awaitable(answer(request, context), context)):
            if count == self._hold_after:
                self.holding.set()
                self.release.wait(30)
                if not context.is_active():
                    self.cancelled.set()
            self.messages += 1
            yield message

    def _awaitable(self, messages: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
        if self._awaited is None:
            yield from messages
            return
        (awaited, reached), self._awaited, left = self._awaited, None, threading.Event()
        when_over(context, left.set)
        for count, message in enumerate(messages, 1):
            if count == awaited:
                reached.set()
            elif count == awaited + GOES_ON:
                left.wait(SOON)
            yield message


def _answer(work: Work, request: Any, context: grpc.ServicerContext) -> Any:
    return work(request, context)


def when_over(context: grpc.ServicerContext, callback: Callable[[], None]) -> None:
    """Call it when the call is over, which it may be already."""
    if not context.add_callback(callback):
        callback()
