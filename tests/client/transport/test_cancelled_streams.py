"""A stream that the server cancels is taken up again; one that this client cancels is not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from support.models.tensors import assert_same_bits
from support.servers.servers import Listener, Watcher, running, served, tiny
from transparent_llm import RemoteTransparentLlm
from transparent_llm.errors import TransparentLlmError

ROWS = [list(range(1, 31)), [3, 4]]


class CancelOnce(Listener):
    """Ends the first stream after some messages, as the server does with one that nobody reads."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._after = after
        self.cancelled = 0

    def _streamed(
        self, answer: Callable[..., Iterator[Any]], request: Any, context: grpc.ServicerContext
    ) -> Iterator[Any]:
        for number, message in enumerate(answer(request, context)):
            if number == self._after and not self.cancelled:
                self.cancelled += 1
                context.cancel()
                return
            yield message


def test_one_that_the_server_cancels_ends_with_the_same_bits() -> None:
    local = tiny().copy()
    local.run_tokens(ROWS)
    cancel = CancelOnce(after=3)
    with running(cancel, chunk_bytes=1000) as server:
        with RemoteTransparentLlm(server.address, timeout_s=30, shared_memory=False) as llm:
            llm.run_tokens(ROWS)
            assert_same_bits(llm.residual_out(1), local.residual_out(1))
    assert cancel.cancelled == 1


def test_one_that_this_client_closes_is_not_taken_up_again() -> None:
    watcher = Watcher(hold_after=2)
    with served(watcher, chunk_bytes=1000) as llm:
        llm.run_tokens(ROWS)
        closing = threading.Thread(target=lambda: watcher.holding.wait(30) and llm.close())
        closing.start()
        with pytest.raises(TransparentLlmError):
            llm.residual_out(1)
        closing.join()
        assert watcher.names.count("ResidualOut") == 1


class CancelUnbegun(grpc.ServerInterceptor):
    """Ends the first call of a method before its work begins, as a server does that ends."""

    def __init__(self, method: str) -> None:
        self._method, self.cancelled = method, 0

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        handler = continuation(details)
        if not str(details.method).endswith(f"/{self._method}") or self.cancelled:
            return handler
        self.cancelled += 1

        def refuse(_: Any, context: grpc.ServicerContext) -> Any:
            context.abort(grpc.StatusCode.CANCELLED, "CANCELLED")

        make = grpc.unary_stream_rpc_method_handler if handler.unary_stream else grpc.unary_unary_rpc_method_handler
        return make(refuse, handler.request_deserializer, handler.response_serializer)


@pytest.mark.parametrize("method", ["Run", "ResidualIn"])
def test_a_call_that_the_server_cancels_before_it_begins_is_made_again(method: str) -> None:
    canceller = CancelUnbegun(method)
    with served(canceller) as llm:
        assert llm.model_info().name == "tiny"
        llm.run_tokens(ROWS)
        local = tiny().copy()
        local.run_tokens(ROWS)
        assert_same_bits(llm.residual_in(1), local.residual_in(1))
    assert canceller.cancelled == 1
