"""Requests are awaited and parsed within the call, where every other interceptor has a say before they come.

By itself gRPC waits for the request of a call before it tells anybody of it, for ever and on a thread. And to what it
cannot parse it answers INTERNAL, as if it were our fault.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from functools import partial

import grpc
from google.protobuf.message import DecodeError

from transparent_llm.analysis.differentiation import MOST_SITES
from transparent_llm.errors import CancelledError, InvalidRequestError, TooLargeError
from transparent_llm.wire.entries import count_entries
from transparent_llm.wire.fetch import MOST_ITEMS
from transparent_llm.wire.sweeps import MOST_CELLS
from transparent_llm_server.rpc.interceptors.base import (
    Continuation,
    Handler,
    Request,
    Response,
    Work,
    WrappedHandlers,
    rewrapped,
)

_SMALL_BYTES = 64 * 2**10
"""What the request of a call that names one value can never need."""

_MOST_BYTES = {
    "TokensToStrings": 2**20,
    "Unembed": 2**22,
    "TopTokens": 2**22,
    "KeepVector": 2**22,
    "Fetch": 2**20,
    "Plan": 2**20,
    "Sweep": 2**22,
    "Gradients": 2**22,
    "Run": 2**31,
    "Generate": 2**31,
    "Tokenize": 2**31,
}
"""Those that carry tokens, a tensor, a list, or text, for which only the server's own limit holds."""

_MOST_ENTRIES = {"Fetch": MOST_ITEMS, "Plan": MOST_ITEMS, "Sweep": MOST_CELLS, "Gradients": MOST_SITES}
_FIELDS_BESIDES = 1024
"""A request with so many more fields, items or cells for the most part, is not parsed to tell how many it has."""

_one_at_a_time = threading.Lock()  # nobody else gets to run while one is parsed: of a large one, for tens of ms


class Arrival(grpc.ServerInterceptor):
    """Stands nearest to the handlers, of all services; to gRPC and those before it all requests are streams."""

    def __init__(self) -> None:
        self._handlers = WrappedHandlers(_unparsed)

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Take the waiting and the parsing over from gRPC."""
        return self._handlers.of(continuation, details)


_Parse = Callable[[bytes], object] | None
"""None: the handler wants bytes."""


def _unparsed(handler: Handler[Request, Response], method: str) -> Handler[Request, Response]:
    take = _with_all if handler.request_streaming else _with_the_only
    taking = partial(take, handler.request_deserializer, method)
    return rewrapped(handler, once=taking, stream=taking, unparsed=True)


def _with_all(
    parse: _Parse, method: str, work: Work, messages: Iterator[bytes], context: grpc.ServicerContext
) -> object:
    return work(_requests(parse, method, messages), context)


def _with_the_only(
    parse: _Parse, method: str, work: Work, messages: Iterator[bytes], context: grpc.ServicerContext
) -> object:
    for request in _requests(parse, method, messages):
        return work(request, context)
    raise InvalidRequestError(f"{method} takes one request, and the call ended without one")


def _requests(parse: _Parse, method: str, messages: Iterator[bytes]) -> Iterator[object]:
    """Parsed, one by one as they come."""
    while True:
        try:
            data = next(messages)
        except StopIteration:
            return
        except grpc.RpcError:
            raise CancelledError(f"the call of {method} was cancelled before its request arrived") from None
        yield _parsed(parse, method, data)


def _parsed(parse: _Parse, method: str, data: bytes) -> object:
    if len(data) <= _SMALL_BYTES:
        return _message(parse, method, data)
    _require_measure(method, data)
    with _one_at_a_time:
        return _message(parse, method, data)


def _require_measure(method: str, data: bytes) -> None:
    rpc = method.rpartition("/")[2]
    allowed = _MOST_BYTES.get(rpc, _SMALL_BYTES)
    if len(data) > allowed:
        raise TooLargeError(
            f"a request of {len(data)} bytes; {method} takes at most {allowed}",
            metadata={"needed": str(len(data)), "allowed": str(allowed)},
        )
    most = _MOST_ENTRIES.get(rpc)
    if most is not None and count_entries(data, (), most + _FIELDS_BESIDES) == most + _FIELDS_BESIDES:
        raise TooLargeError(
            f"far more items at once than {method} takes, {most}; split it into several calls",
            metadata={"needed": f"more than {most}", "allowed": str(most)},
        )


def _message(parse: _Parse, method: str, data: bytes) -> object:
    try:
        return data if parse is None else parse(data)
    except DecodeError as error:
        raise InvalidRequestError(f"these {len(data)} bytes are not a valid request of {method}: {error}") from None
