"""How many bytes an answer has on the wire, headers and frames of messages included."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from transparent_llm.wire import requests
from transparent_llm.wire.form import Form
from transparent_llm.wire.methods import SERVICE

_FRAME_BYTES = 5
"""gRPC's own, before each message."""


def of_fetch(address: str, run_id: str, reads: Sequence[tuple[Any, ...]]) -> int:
    """Of many reads in one stream."""
    request = requests.fetch(run_id, [requests.Item(name, tuple(arguments), Form()) for name, *arguments in reads])
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_stream(f"/{SERVICE}/Fetch", None, None)
        return sum(len(message) + _FRAME_BYTES for message in call(request.SerializeToString()))
