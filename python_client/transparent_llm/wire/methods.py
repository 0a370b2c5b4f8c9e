"""The table: how each method of `TransparentLlm` maps to the wire. Client and servicer both work from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from transparent_llm.errors import InvalidRequestError
from transparent_llm.wire._gen import service_pb2

SERVICE = "transparent_llm.v1.TransparentLlmService"
RUN_KEY_HEADER = "x-transparent-llm-run-key"
"""Request metadata: a hint for proxies, the same for a run and all reads of it."""


@dataclass(frozen=True)
class Method:
    """One row: a method of the class and the RPC that moves it."""

    name: str
    """In the class: `residual_in`."""

    arguments: tuple[str, ...] = ()
    """Index arguments, in the order of the class and under the names of the request."""

    dims: tuple[str, ...] | None = None
    """Names of the result's axes; None for a unary call."""

    optional: tuple[str, ...] = ()
    """Those of the arguments that may be left out."""

    of_run: bool = True
    """Whether it reads a run, or the model alone."""

    of_class: bool = True
    """Whether it is a method of the class, or a client's way to answer several of them at once."""

    @property
    def rpc(self) -> str:
        """In the service: `ResidualIn`."""
        return "".join(word.capitalize() for word in self.name.split("_"))

    @property
    def request_type(self) -> type[Message]:
        """The generated request message."""
        request: type[Message] = getattr(service_pb2, f"{self.rpc}Request")
        return request

    def indices(self, request: Any) -> tuple[int | None, ...]:
        """The indices in a request, in the order of the class; None for an optional one that is absent.

        Raises:
            InvalidRequestError: one that is not optional is absent.
        """
        missing = [name for name in self.arguments if not request.HasField(name) and name not in self.optional]
        if missing:
            raise InvalidRequestError(
                f"{self.rpc} needs {', '.join(missing)}; an index has no default",
                reason="MISSING_ARGUMENT",
                metadata={"axis": missing[0]},
            )
        return tuple(getattr(request, name) if request.HasField(name) else None for name in self.arguments)


_RESIDUAL = ("batch", "pos", "d_model")

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("model_info", of_run=False),
        Method("run", of_run=False),
        Method("batch_size"),
        Method("tokens", dims=("batch", "pos")),
        Method("tokens_to_strings", of_run=False),
        Method("logits", dims=("batch", "pos", "d_vocab")),
        Method("unembed", dims=("vocab",), of_run=False),
        Method("residual_in", ("layer",), _RESIDUAL),
        Method("residual_after_attn", ("layer",), _RESIDUAL),
        Method("residual_out", ("layer",), _RESIDUAL),
        Method("ffn_out", ("layer",), _RESIDUAL),
        Method("decomposed_ffn_out", ("batch_i", "layer", "pos"), ("hidden", "d_model")),
        Method("neuron_activations", ("batch_i", "layer", "pos"), ("d_ffn",)),
        Method("neuron_output", ("layer", "neuron"), ("d_model",), of_run=False),
        Method("attention_matrix", ("batch_i", "layer", "head"), ("query_pos", "key_pos")),
        Method("attention_output", ("batch_i", "layer", "pos", "head"), ("d_model",), optional=("head",)),
        Method("decomposed_attn", ("batch_i", "layer"), ("target", "source", "head", "d_model")),
        Method("neuron_outputs", ("layer",), ("d_ffn", "d_model"), of_run=False, of_class=False),
    )
}


def message_class(descriptor: Any) -> Any:
    """The generated class of a message of service.proto."""
    return getattr(service_pb2, descriptor.name)


class Stub:
    """One callable for each RPC of a channel. They give messages as they came: gRPC would say of one that cannot be
    parsed only that something is wrong."""

    def __init__(self, channel: grpc.Channel) -> None:
        for rpc in service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"].methods:
            path, serialize = f"/{SERVICE}/{rpc.name}", message_class(rpc.input_type).SerializeToString
            begin = channel.unary_stream if rpc.server_streaming else channel.unary_unary
            setattr(self, rpc.name, begin(path, request_serializer=serialize))
