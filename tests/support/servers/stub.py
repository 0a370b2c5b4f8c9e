"""Every RPC of a channel, with messages as Python has them: the client's own stub leaves parsing to the client."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import grpc

from transparent_llm.wire.methods import SERVICE
from transparent_llm.wire.rpcs import RPCS


def stub(channel: grpc.Channel) -> Any:
    """An object with one callable for each RPC, by its name."""
    calls = {}
    for rpc in RPCS:
        begin = channel.unary_stream if rpc.streams else channel.unary_unary
        calls[rpc.name] = begin(f"/{SERVICE}/{rpc.name}", rpc.request.SerializeToString, rpc.response.FromString)
    return SimpleNamespace(**calls)
