"""From the names of RPCs to the methods that answer them."""

from __future__ import annotations

from typing import Any

import grpc
from google.protobuf.message import Message

from transparent_llm.wire.methods import ADMIN_SERVICE, SERVICE
from transparent_llm.wire.rpcs import ADMIN_RPCS, RPCS
from transparent_llm_server.rpc.administration import AdminServicer
from transparent_llm_server.rpc.servicer import TransparentLlmServicer


def add_servicer(servicer: TransparentLlmServicer, server: grpc.Server) -> None:
    """Register it with a gRPC server. Streams are framed by hand, and long text is serialized where it is made: such
    messages are bytes when they come here."""
    handlers: dict[str, grpc.RpcMethodHandler[Message, Any]] = {}
    for rpc in RPCS:
        behavior = getattr(servicer, rpc.name)
        parse = servicer.intake.parser(rpc.name, rpc.request.FromString)
        if rpc.streams:
            handlers[rpc.name] = grpc.unary_stream_rpc_method_handler(behavior, parse)
        else:
            handlers[rpc.name] = grpc.unary_unary_rpc_method_handler(behavior, parse, _serialized)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def _serialized(answer: Message | bytes) -> bytes:
    return answer if isinstance(answer, bytes) else answer.SerializeToString()


def add_admin_servicer(servicer: AdminServicer, server: grpc.Server) -> None:
    """Register the service of administrators."""
    handlers: dict[str, grpc.RpcMethodHandler[Message, Any]] = {
        rpc.name: grpc.unary_unary_rpc_method_handler(
            getattr(servicer, rpc.name), rpc.request.FromString, rpc.response.SerializeToString
        )
        for rpc in ADMIN_RPCS
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(ADMIN_SERVICE, handlers),))
