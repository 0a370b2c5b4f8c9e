"""Whoever calls must say who they are, where the server wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from grpc_health.v1 import health

from transparent_llm.errors import AuthError
from transparent_llm_server.access.identity import Identity
from transparent_llm_server.rpc.interceptors.base import ContextInterceptor


class Authentication(ContextInterceptor):
    """Lets calls with an owner through, and those of the health service without."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:  # noqa: ARG002
        """Find the owner, or refuse."""
        self._identity.owner_of(context)
        yield

    def intercept_service(
        self, continuation: Callable[[grpc.HandlerCallDetails], Any], details: grpc.HandlerCallDetails
    ) -> Any:
        """Judge the token before the request is read: gRPC lets a call that sends none hold a thread."""
        if str(details.method).startswith(f"/{health.SERVICE_NAME}/"):
            return continuation(details)
        try:
            self._identity.owner_of_bearer_token(details.invocation_metadata)
        except AuthError as error:
            return _refusing(error)
        return super().intercept_service(continuation, details)


def _refusing(error: AuthError) -> Any:
    """Answers any call, unread. Streams both ways on the server's side only: the client sees a failed call."""

    def refuse(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:  # noqa: ARG001
        raise error
        yield  # what makes it a stream

    return grpc.stream_stream_rpc_method_handler(refuse)
