"""The RPCs of service.proto, as the generated code describes them, and how a client calls them."""

from __future__ import annotations

from dataclasses import dataclass

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from transparent_llm.wire._gen import service_pb2, tensor_pb2
from transparent_llm.wire.methods import SERVICE


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
    module = tensor_pb2 if message.file is tensor_pb2.DESCRIPTOR else service_pb2
    generated: type[Message] = getattr(module, message.name)
    return generated


RPCS = tuple(
    Rpc(rpc.name, _generated(rpc.input_type), _generated(rpc.output_type), rpc.server_streaming)
    for rpc in service_pb2.DESCRIPTOR.services_by_name[SERVICE.rpartition(".")[2]].methods
)


class Stub:
    """One callable for each RPC of a channel. They give messages as they came: gRPC would say of one that cannot be
    parsed only that something is wrong."""

    def __init__(self, channel: grpc.Channel) -> None:
        for rpc in RPCS:
            begin = channel.unary_stream if rpc.streams else channel.unary_unary
            setattr(self, rpc.name, begin(f"/{SERVICE}/{rpc.name}", request_serializer=rpc.request.SerializeToString))
