"""What gRPC is told of a server's connections: sizes, ages, pings, and that nothing is compressed."""

from __future__ import annotations

from transparent_llm.wire.frames import LARGEST_FRAME_BYTES, NO_COMPRESSION
from transparent_llm_server.config.server import MIB, ServerConfig


def channel_options(config: ServerConfig) -> list[tuple[str, int]]:
    """For the port of calls."""
    return [
        ("grpc.so_reuseport", 0),  # a second server on the same port must fail, not share it
        ("grpc.max_receive_message_length", config.max_request_bytes),
        ("grpc.max_send_message_length", config.max_chunk_bytes + MIB),
        ("grpc.http2.max_frame_size", LARGEST_FRAME_BYTES),
        NO_COMPRESSION,
        ("grpc.http2.min_ping_interval_without_data_ms", int(config.shortest_ping_s * 1000)),
        ("grpc.http2.max_ping_strikes", 2),
        ("grpc.keepalive_permit_without_calls", 1),  # a proxy asks on idle connections too, as often as that
        ("grpc.max_metadata_size", config.max_metadata_bytes),
        ("grpc.absolute_max_metadata_size", config.max_metadata_bytes),  # between the two, chance would decide
        ("grpc.max_concurrent_streams", config.max_streams_per_connection),
        ("grpc.max_connection_age_ms", _milliseconds(config.connection_age_s)),
        ("grpc.max_connection_age_grace_ms", _milliseconds(config.connection_grace_s)),
        ("grpc.max_connection_idle_ms", _milliseconds(config.connection_idle_s)),
        ("grpc.server_handshake_timeout_ms", _milliseconds(config.handshake_s)),
    ]


def _milliseconds(seconds: float) -> int:
    """For gRPC, which knows no 0 that means never."""
    return int(seconds * 1000) if seconds else 2**31 - 1
