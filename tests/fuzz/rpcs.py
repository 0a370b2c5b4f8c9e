"""Every RPC that a server answers, how bytes are sent to it, and a request that is right."""

from __future__ import annotations

from typing import Any

import grpc
import torch
from google.protobuf import message_factory
from google.protobuf.descriptor import ServiceDescriptor
from grpc import StatusCode
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from support.servers.servers import tiny
from transparent_llm.analysis.differentiation import Differentiation, Edges, Path, SiteGradient
from transparent_llm.analysis.metrics import Metric, kl, loss, projection
from transparent_llm.analysis.sweep_cells import Cell, Sweep
from transparent_llm.generation import GenerationSettings
from transparent_llm.interventions import (
    add,
    ffn_out,
    freeze,
    head,
    key,
    norm_scale,
    patch,
    query,
    residual_in,
    residual_out,
    scale,
    unembedding,
    value_of,
)
from transparent_llm.run_input import RunInput
from transparent_llm.wire import generation, gradients, requests, sweeps, tensors
from transparent_llm.wire._gen import service_pb2
from transparent_llm.wire.methods import METHODS

ROWS = [[1, 2, 3, 4], [5, 6]]
ALLOWED = {
    StatusCode.OK,
    StatusCode.INVALID_ARGUMENT,
    StatusCode.NOT_FOUND,
    StatusCode.OUT_OF_RANGE,
    StatusCode.RESOURCE_EXHAUSTED,
    StatusCode.UNIMPLEMENTED,
}
SERVICES: list[ServiceDescriptor] = [
    service_pb2.DESCRIPTOR.services_by_name["TransparentLlmService"],
    health_pb2.DESCRIPTOR.services_by_name["Health"],
    reflection_pb2.DESCRIPTOR.services_by_name["ServerReflection"],
]
RPCS = {rpc.full_name: rpc for service in SERVICES for rpc in service.methods}
NEVER_ANSWERED = {"grpc.health.v1.Health.List"}
"""Newer than the health service that is served."""

_BY_RPC = {method.rpc: method for method in METHODS.values()}


def send(
    channel: grpc.Channel, name: str, data: bytes, deadline_s: float, metadata: list[tuple[str, str]] | None = None
) -> grpc.RpcError | None:
    """Send bytes as a request and take the whole answer; what it failed with."""
    path, rpc = "/{0}/{2}".format(*name.rpartition(".")), RPCS[name]
    if rpc.client_streaming:
        answer: Any = channel.stream_stream(path)(iter([data]), timeout=deadline_s, metadata=metadata)
    else:
        answer = channel.unary_stream(path)(data, timeout=deadline_s, metadata=metadata)
    try:
        for _ in answer:
            if rpc.name == "Watch":  # has no end
                answer.cancel()
                break
    except grpc.RpcError as error:
        return error
    return None


def right_requests(name: str, run_id: str, d_model: int) -> list[Any]:
    """Some that are answered: one, or more of an RPC that takes one thing or another."""
    if RPCS[name].name == "Gradients":
        return [_gradients(run_id), _integrated_gradients(run_id), _edges(run_id)]
    return [_right_request(name, run_id, d_model)]


def _right_request(name: str, run_id: str, d_model: int) -> Any:
    rpc = RPCS[name]
    request: Any = message_factory.GetMessageClass(rpc.input_type)()
    if rpc.name == "Run":
        source = value_of(ffn_out(0), tiny(), row=1, pos=-1) - unembedding(3)
        edits = [
            *(patch(residual_in(1), tiny(), positions=[0]), add(residual_out(-1), source, positions="last")),
            *(freeze(query(0), tiny()), scale(key(1, 0), 2.0), freeze(norm_scale(0, "ffn"), tiny())),
        ]
        request = requests.run(RunInput.of_tokens(ROWS), "", edits, lambda _: run_id)
    elif rpc.name in ("Fetch", "Plan"):
        request = type(request)(run_id=run_id, items=[{"ffn_out": {"layer": 1}}, {"logits": {}}])
        if rpc.name == "Plan":
            request.sweep.CopyFrom(_sweep(run_id))
    elif rpc.name == "Generate":
        settings = GenerationSettings(3, 0.5, 20, 0.9, 7, ("xyz",), (9,), 2)
        edits = (patch(residual_in(1), tiny(), positions=[0]), scale(key(1, 0), 2.0))
        request = generation.to_wire(RunInput.of_tokens(ROWS), settings, edits, "", lambda _: run_id)
    elif rpc.name == "Sweep":
        request = _sweep(run_id)
    elif rpc.name in _BY_RPC:
        method = _BY_RPC[rpc.name]
        parameters = (1 if parameter.name == "k" else parameter.default for parameter in method.parameters)
        target = run_id if method.of_run else ""
        request = requests.of_method(method.name, target, *(0 for _ in method.arguments), *parameters)
    elif rpc.name in ("ReleaseRun", "BatchSize"):
        request.run_id = run_id
    elif rpc.name == "CompareRuns":
        request.run_id = request.other_run_id = run_id
    elif rpc.name == "ServerReflectionInfo":
        request.list_services = "*"
    if rpc.name in ("Unembed", "TopTokens"):
        request.t.CopyFrom(tensors.encode(torch.ones(d_model)))
    if rpc.name == "KeepVector":
        request.name = "a"
        request.vector.CopyFrom(tensors.encode(torch.ones(d_model)))
    if rpc.name == "DropVector":
        request.name = "b"
    if rpc.name == "Dataset":
        request.name = "words"
    if rpc.name == "Tokenize":
        request.text = "The river"
    if rpc.name == "TokensToStrings":
        request.token_ids.extend([1, 2, 3])
    return request


def _gradients(run_id: str) -> Any:
    source = tiny()
    sites = (SiteGradient(residual_in(0)), SiteGradient(head(1), "times_difference", source, (0,)))
    direction = value_of(residual_in(0), source, pos=0)
    metric = projection(residual_in(1), direction)
    return gradients.to_wire(Differentiation(metric, sites, (0,), ("patterns",)), run_id, lambda _: run_id)


def _integrated_gradients(run_id: str) -> Any:
    """Of an edited run, at another site than the embedding."""
    edits = (scale(head(0, 1), 0.5), patch(residual_in(1), tiny(), positions=[0]))
    path = Path(tiny(), 2, ffn_out(0))
    asked = Differentiation(Metric(5, measure="prob"), rows=(0,), path=path, edits=edits)
    return gradients.to_wire(asked, run_id, lambda _: run_id)


def _edges(run_id: str) -> Any:
    asked = Differentiation(kl(tiny()), rows=(0,), edges=Edges(tiny(), (0,), 2))
    return gradients.to_wire(asked, run_id, lambda _: run_id)


def _sweep(run_id: str) -> Any:
    source = tiny()
    direction = value_of(residual_in(0), source, pos=0)
    metrics = (Metric(5, 6), loss(), kl(source), projection(residual_in(1), direction))
    cells = (Cell(layer=1, head=1, source_row=0), Cell(positions=(0,)))
    edits = (add(residual_in(0), unembedding(3), positions=[0]),)
    sweep = Sweep((patch(head(0, 0), source, rows=[0], source_rows=[0]),), cells, metrics, (0,), edits)
    return sweeps.to_wire(sweep, range(2), run_id, lambda _: run_id)
