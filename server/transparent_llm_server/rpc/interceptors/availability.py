"""Calls that cannot be answered while the server loads or drains are told so at once."""

from __future__ import annotations

import grpc

from transparent_llm.wire.methods import SERVICE
from transparent_llm_server.lifecycle import Lifecycle
from transparent_llm_server.rpc.interceptors.base import CheckInterceptor


class Availability(CheckInterceptor):
    """Lets calls of our service through when the server serves; health and reflection always."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    def check(self, method: str, context: grpc.ServicerContext) -> None:  # noqa: ARG002
        """Refuse calls of this service while the server loads or drains; health and reflection are always answered."""
        if method.startswith(f"/{SERVICE}/"):
            self._lifecycle.require_serving()
