"""The answers to KeepVector, ListVectors and DropVector."""

from __future__ import annotations

from transparent_llm.interventions.kept import checked_name, kept, require_few_elements
from transparent_llm.wire import kept_vectors, tensors
from transparent_llm.wire._gen import service_pb2
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.scheduling.vector_store import VectorBudget, VectorStore


def budget_of(config: ServerConfig) -> VectorBudget:
    """What a server with these settings keeps."""
    return VectorBudget(
        config.vector_store_bytes, config.vector_bytes_per_owner, config.vectors_per_owner, config.run_ttl_s
    )


def keep(request: service_pb2.KeepVectorRequest, vectors: VectorStore, owner: str) -> service_pb2.KeepVectorResponse:
    """Of a request.

    Raises:
        InvalidRequestError: a name that none can be, or numbers that are no vector or not finite.
        TooLargeError: too many numbers, or more than an owner may keep.
    """
    checked_name(request.name)
    vector = tensors.decode(request.vector)
    require_few_elements(vector.numel())
    made = kept(request.name, vector)
    vectors.put(made, owner)
    return service_pb2.KeepVectorResponse(digest=made.digest)


def listed(vectors: VectorStore, owner: str) -> service_pb2.ListVectorsResponse:
    """Of an owner."""
    return service_pb2.ListVectorsResponse(vectors=kept_vectors.kept_to_wire(vectors.of(owner)))
