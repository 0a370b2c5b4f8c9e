"""What a server tells everyone of itself."""

from __future__ import annotations

import importlib.metadata
import platform
from functools import cache

from transparent_llm.description import Limits, ServerInfo
from transparent_llm.interventions.kept import MOST_ELEMENTS
from transparent_llm.version import API_VERSION, __version__
from transparent_llm.wire.fetch import MOST_ITEMS
from transparent_llm.wire.sweeps import MOST_CELLS
from transparent_llm_server.config.server import ServerConfig
from transparent_llm_server.models.serving import CompletedRun
from transparent_llm_server.registry.registry import Registry
from transparent_llm_server.rpc.datasets import Datasets
from transparent_llm_server.scheduling.run_store import RunStore

FEATURES = (
    "slices",
    "wire_dtype",
    "resume",
    "run_tokens",
    "edits",
    "compare_runs",
    "compare_positions",
    "kept_vectors",
    "factored",
    "fetch",
    "neuron_outputs",
    "plan",
    "model_states",
    "tokenize",
    "add_bos",
    "analysis",
    "top_tokens",
    "sweep",
    "circuits",
    "matching_scores",
    "sae_features",
    "gradients",
    "generate",
    "contribution_edges_to",
    "datasets",
)


def server_info(
    config: ServerConfig, registry: Registry, datasets: Datasets, runs: RunStore[CompletedRun], owner: str
) -> ServerInfo:
    """As it is now, with an owner's own numbers."""
    stored_runs, stored_run_bytes = runs.usage(owner)
    return ServerInfo(
        api_version=API_VERSION,
        server_version=__version__,
        models=registry.descriptions(),
        limits=limits_of(config, runs.max_bytes_per_owner),
        features=FEATURES,
        versions=_library_versions(),
        stored_runs=stored_runs,
        stored_run_bytes=stored_run_bytes,
        datasets=datasets.describe(),
    )


def limits_of(config: ServerConfig, run_bytes_per_owner: int) -> Limits:
    """Of a server with these settings, where one owner has so much of the run store."""
    return Limits(
        max_tokens_per_run=config.max_tokens_per_run,
        max_sentences_per_run=config.max_sentences_per_run,
        run_store_bytes=config.run_store_bytes,
        run_ttl_seconds=config.run_ttl_s,
        max_chunk_bytes=config.max_chunk_bytes,
        queue_length=config.queue_length,
        max_read_bytes=config.max_read_bytes,
        run_bytes_per_owner=run_bytes_per_owner,
        max_streams=config.max_streams,
        max_streams_per_owner=config.max_streams_per_owner,
        model_bytes=config.model_bytes or 0,
        max_text_bytes=config.max_text_bytes,
        max_items=MOST_ITEMS,
        max_read_work=config.max_read_work,
        vector_store_bytes=config.vector_store_bytes,
        vector_bytes_per_owner=min(config.vector_bytes_per_owner, config.vector_store_bytes),
        vectors_per_owner=config.vectors_per_owner,
        max_vector_elements=MOST_ELEMENTS,
        max_sweep_cells=MOST_CELLS,
        max_sweep_positions=config.max_sweep_positions,
    )


@cache
def _library_versions() -> dict[str, str]:
    libraries = ("torch", "transformers", "transformer-lens", "grpcio", "protobuf")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in libraries}}
