"""Whoever calls must say who they are, where the server wants to know."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from grpc_health.v1 import health

from transparent_llm.errors import AuthError
from transparent_llm.wire.methods import ADMIN_SERVICE
from transparent_llm_server.access.identity import Identity
from transparent_llm_server.rpc.interceptors.base import (
    CheckInterceptor,
    Continuation,
    Handler,
    Request,
    Response,
    for_one_call,
)


class Authentication(CheckInterceptor):
    """Lets calls with an owner through, those of the health service without, and those of the administrators' service
    with a token of theirs."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity

    def check(self, method: str, context: grpc.ServicerContext) -> None:
        """Find the owner, or refuse."""
        if _is_for_administrators(method):
            self._identity.admit_administrator(context)
        else:
            self._identity.owner_of(context)

    def intercept_service(
        self, continuation: Continuation[Request, Response], details: grpc.HandlerCallDetails
    ) -> Handler[Request, Response] | None:
        """Judge the token before the request is read: gRPC lets a call that sends none hold a thread."""
        if str(details.method).startswith(f"/{health.SERVICE_NAME}/"):
            return continuation(details)
        try:
            if _is_for_administrators(str(details.method)):
                self._identity.administrator_of_bearer_token(details.invocation_metadata)
            else:
                self._identity.owner_of_bearer_token(details.invocation_metadata)
        except AuthError as error:
            return _refusing(error)
        return super().intercept_service(continuation, details)


def _is_for_administrators(method: str) -> bool:
    return method.startswith(f"/{ADMIN_SERVICE}/")


def _refusing(error: AuthError) -> Handler[Request, Response]:
    """Answers any call, unread. Streams both ways on the server's side only: the client sees a failed call."""

    @for_one_call
    def refuse(requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:  # noqa: ARG001
        raise error
        yield  # what makes it a stream

    return grpc.stream_stream_rpc_method_handler(refuse)
