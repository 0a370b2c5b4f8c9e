"""The two messages of grpc.health.v1 that a client needs, without the package that wants a new protobuf."""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

CHECK = "/grpc.health.v1.Health/Check"
SERVING = 1


def _messages() -> tuple[type[Message], type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="health_client.proto", package="grpc.health.v1", syntax="proto3")
    field = descriptor_pb2.FieldDescriptorProto
    request = file.message_type.add(name="HealthCheckRequest")
    request.field.add(name="service", number=1, type=field.TYPE_STRING, label=field.LABEL_OPTIONAL)
    response = file.message_type.add(name="HealthCheckResponse")
    response.field.add(name="status", number=1, type=field.TYPE_INT32, label=field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()  # of our own: the default pool may hold the real file
    pool.Add(file)
    names = ("grpc.health.v1.HealthCheckRequest", "grpc.health.v1.HealthCheckResponse")
    request_type, response_type = (message_factory.GetMessageClass(pool.FindMessageTypeByName(n)) for n in names)
    return request_type, response_type


HealthCheckRequest, HealthCheckResponse = _messages()
