"""The RPCs of service.proto and admin.proto, as the generated code describes them, and how a client calls them."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import Descriptor, FileDescriptor
from google.protobuf.message import Message

from transparent_llm.wire._gen import (
    admin_pb2,
    analysis_pb2,
    circuits_pb2,
    features_pb2,
    generation_pb2,
    gradients_pb2,
    service_pb2,
    sweeps_pb2,
    tensor_pb2,
)
from transparent_llm.wire.methods import ADMIN_SERVICE, SERVICE


@dataclass(frozen=True)
class Rpc:
    """One RPC of the service: its messages, and whether it streams."""

    name: str
    """`ResidualIn`."""

    request: type[Message]
    response: type[Message]
    """Of a stream: each of its messages."""

    streams: bool
    """Whether it answers with a stream."""


def _generated(message: Descriptor) -> type[Message]:
    modules = (
        tensor_pb2,
        service_pb2,
        analysis_pb2,
        circuits_pb2,
        features_pb2,
        generation_pb2,
        gradients_pb2,
        sweeps_pb2,
        admin_pb2,
    )
    module = next(module for module in modules if message.file is module.DESCRIPTOR)
    generated: type[Message] = getattr(module, message.name)
    return generated


def _rpcs(file: FileDescriptor, service: str) -> tuple[Rpc, ...]:
    return tuple(
        Rpc(rpc.name, _generated(rpc.input_type), _generated(rpc.output_type), rpc.server_streaming)
        for rpc in file.services_by_name[service.rpartition(".")[2]].methods
    )


RPCS = _rpcs(service_pb2.DESCRIPTOR, SERVICE)
ADMIN_RPCS = _rpcs(admin_pb2.DESCRIPTOR, ADMIN_SERVICE)


class Stub:
    """One callable for each RPC of a channel. They give messages as they came: gRPC would say of one that cannot be
    parsed only that something is wrong. What answers once is called as a stream of one message: gRPC gives initial
    metadata of streams before the answer, and waits for them on the caller's own thread."""

    def __init__(self, channel: grpc.Channel) -> None:
        for service, rpcs in ((SERVICE, RPCS), (ADMIN_SERVICE, ADMIN_RPCS)):
            for rpc in rpcs:
                path = f"/{service}/{rpc.name}"
                setattr(self, rpc.name, channel.unary_stream(path, request_serializer=rpc.request.SerializeToString))
