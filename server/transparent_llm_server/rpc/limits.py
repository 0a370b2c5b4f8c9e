"""What a server allows, as it tells everyone."""

from __future__ import annotations

from transparent_llm.description import Limits
from transparent_llm.wire.fetch import MOST_ITEMS
from transparent_llm_server.config.server import ServerConfig


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
    )
